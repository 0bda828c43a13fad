#!/bin/sh
# One task from nothing to scores: sh recipes/real_data/run.sh TASK FOLDER [OPTIONS OF skd.data.make]
#
#   sh recipes/real_data/run.sh gsm8k gsm8k
#   sh recipes/real_data/run.sh math math
#   sh recipes/real_data/run.sh dialogsum dialogsum
#   sh recipes/real_data/run.sh translation assamese-english
#
# FOLDER is the one that skd.data.make writes. What was done already is kept: remove runs/real_data/FOLDER to start anew.
set -eu
task=$1 folder=$2
shift 2
data=data/$folder pair=models/real_data/$folder runs=runs/real_data/$folder
held_out="data.validation.path=$data/validation.jsonl data.validation.task=$task"
case $task in
translation*) characters=160 ;;
dialogsum) characters=300 ;;
*) characters=400 ;;
esac

python -m skd.data.make "$task" --to data --max-characters "$characters" --train 3000 --test 100 "$@"
[ -d "$pair" ] || python recipes/real_data/make_pair.py "$task" "$data" --to "$pair"

# The rows of the task, and the same rows as whole texts, from which untrained models learn the language.
rows="[{path: $data/train.jsonl, task: $task}, {path: $pair/texts.jsonl}]"
# $held_out is a list of words on purpose: no path in it holds a space.
# shellcheck disable=SC2086
{
  for name in teacher sft; do
    role=$([ "$name" = sft ] && echo student || echo teacher)
    skd train recipes/real_data/sft.yaml data.train="$rows" $held_out student="$pair/$role" output="$runs/$name"
  done
  skd train recipes/real_data/skd.yaml data.train.path="$data/train.jsonl" data.train.task="$task" $held_out \
    teacher="$runs/teacher/student" student="$runs/sft/student" output="$runs/skd"
}
measure() {
  name=$1
  shift
  skd evaluate "$runs/$name" --task "$task" --data "$data/test.jsonl" --max-new-tokens 128 \
    --long-prompts truncate_left --out "$runs/$name.jsonl" "$@"
}
measure teacher
measure sft --teacher "$runs/teacher/student"
measure skd --teacher "$runs/teacher/student"
