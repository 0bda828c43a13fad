"use strict";
(() => {
  const card = document.getElementById("card");
  if (!card) return;
  const AUTHORS = ["in the data set", "by the student", "by the teacher"];
  const details = new Map();
  let shown = null;
  let pieces = [];

  for (const view of document.querySelectorAll(".view")) {
    const data = JSON.parse(view.querySelector("script[type='application/json']").textContent);
    pieces = data.pieces;
    view.querySelectorAll(".tokens").forEach((tokens, row) => {
      Array.from(tokens.children).forEach((token, i) => {
        details.set(token, data.tokens[row][i]);
        token.tabIndex = i === 0 ? 0 : -1;
      });
    });
    const slider = view.querySelector(".when");
    if (slider) follow(view, slider, view.querySelector(".play"));
  }

  function follow(view, slider, button) {
    const parts = Array.from(view.querySelectorAll("[data-at]"), (part) => [part, part.dataset.at.split(" ")]);
    let timer = 0;
    const move = (value) => {
      slider.value = value;
      for (const [part, at] of parts) part.classList.toggle("on", at.includes(slider.value));
      const said = view.querySelectorAll(".said .on");
      slider.setAttribute("aria-valuetext", Array.from(said, (line) => line.textContent).join("; "));
      hide();
    };
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      button.classList.remove("playing");
      button.setAttribute("aria-label", "Play through training");
    };
    const play = () => {
      if (slider.value === slider.max) move(0);
      button.classList.add("playing");
      button.setAttribute("aria-label", "Pause");
      timer = setInterval(() => {
        if (slider.value === slider.max) stop();
        else move(Number(slider.value) + 1);
      }, 900);
    };
    slider.addEventListener("input", () => {
      stop();
      move(slider.value);
    });
    button.addEventListener("click", () => (timer ? stop() : play()));
    for (const bar of view.querySelectorAll(".moment[data-at]")) {
      bar.addEventListener("click", () => {
        stop();
        move(bar.dataset.at);
      });
    }
    // A browser keeps the position of a slider over a reload, and not which parts are shown.
    move(slider.value);
  }

  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  const topList = (title, name, top, chosen) => {
    const list = make("div", name);
    list.append(make("p", "", title));
    for (let i = 0; i < top.length; i += 2) {
      const percent = top[i + 1] === null ? null : top[i + 1] / 100;
      const line = make("div", top[i] === chosen ? "top chosen" : "top");
      const bar = make("i", "");
      bar.style.width = `${percent ?? 0}%`;
      line.append(bar, make("span", "", pieces[top[i]]), make("b", "", percent === null ? "–" : `${percent.toFixed(1)} %`));
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

  function hide() {
    if (shown) shown.removeAttribute("aria-describedby");
    shown = null;
    card.hidden = true;
  }

  const show = (token) => {
    const detail = details.get(token);
    if (!detail) return;
    hide();
    const [author, divergence, teacher, student, chosen] = detail;
    const distance = divergence === null ? "divergence not recorded" : `divergence ${divergence.toFixed(3)} nats`;
    const tops = make("div", "tops");
    if (teacher.length) tops.append(topList("Teacher's top 5", "of-teacher", teacher, chosen));
    if (student.length) tops.append(topList("Student's top 5", "of-student", student, chosen));
    const piece = make("div", "piece", pieces[chosen]);
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
