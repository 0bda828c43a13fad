"use strict";
(() => {
  const card = document.getElementById("card");
  if (!card) return;
  const AUTHORS = ["in the data set", "by the student", "by the teacher"];
  const details = new Map();
  let shown = null;

  for (const view of document.querySelectorAll(".view")) {
    const data = JSON.parse(view.querySelector("script[type='application/json']").textContent);
    view.querySelectorAll(".tokens").forEach((tokens, row) => {
      Array.from(tokens.children).forEach((token, i) => {
        details.set(token, data[row][i]);
        token.tabIndex = i === 0 ? 0 : -1;
      });
    });
  }

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const topList = (title, name, pairs, chosen) => {
    const list = make("div", name);
    list.append(make("p", "", title));
    for (const [piece, probability] of pairs) {
      const line = make("div", piece === chosen ? "top chosen" : "top");
      const bar = make("i", "");
      bar.style.width = `${100 * (probability ?? 0)}%`;
      const percent = probability === null ? "–" : `${(100 * probability).toFixed(1)} %`;
      line.append(bar, make("span", "", piece), make("b", "", percent));
      list.append(line);
    }
    return list;
  };

  const place = (token) => {
    const at = token.getClientRects()[0];
    const below = at.bottom + 8 + card.offsetHeight <= window.innerHeight || at.top < card.offsetHeight + 8;
    const left = Math.max(12, Math.min(at.left, document.documentElement.clientWidth - card.offsetWidth - 12));
    card.style.left = `${left + window.scrollX}px`;
    card.style.top = `${(below ? at.bottom + 8 : at.top - card.offsetHeight - 8) + window.scrollY}px`;
  };

  const hide = () => {
    if (shown) shown.removeAttribute("aria-describedby");
    shown = null;
    card.hidden = true;
  };

  const show = (token) => {
    const detail = details.get(token);
    if (!detail) return;
    hide();
    const [author, divergence, teacher, student, chosen] = detail;
    const distance = divergence === null ? "divergence not recorded" : `divergence ${divergence.toFixed(3)} nats`;
    const tops = make("div", "tops");
    if (teacher.length) tops.append(topList("Teacher's top 5", "of-teacher", teacher, chosen));
    if (student.length) tops.append(topList("Student's top 5", "of-student", student, chosen));
    const piece = make("div", "piece", chosen);
    card.replaceChildren(piece, make("div", "small", `written ${AUTHORS[author]} · ${distance}`), tops);
    card.hidden = false;
    token.setAttribute("aria-describedby", "card");
    shown = token;
    place(token);
  };

  const target = (event) => (event.target instanceof Element ? event.target.closest(".tokens > .t") : null);
  document.addEventListener("pointerover", (event) => {
    const token = target(event);
    if (token) show(token);
    else if (shown && shown !== document.activeElement) hide();
  });
  document.addEventListener("focusin", (event) => (target(event) ? show(target(event)) : hide()));
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const token = target(event);
    if (!token) return;
    const next = {
      ArrowRight: token.nextElementSibling,
      ArrowLeft: token.previousElementSibling,
      Home: token.parentElement.firstElementChild,
      End: token.parentElement.lastElementChild,
    }[event.key];
    if (!next) return;
    event.preventDefault();
    token.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
})();
