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
rows="data.train.path=$data/train.jsonl data.train.task=$task data.validation.path=$data/validation.jsonl data.validation.task=$task"

python -m skd.data.make "$task" --to data --max-characters 400 --test 100 "$@"
[ -d "$pair" ] || python recipes/real_data/make_pair.py "$task" "$data" --to "$pair"

# $rows is a list of words on purpose: no path in it holds a space.
# shellcheck disable=SC2086
{
  skd train recipes/real_data/sft.yaml $rows student="$pair/teacher" output="$runs/teacher"
  skd train recipes/real_data/sft.yaml $rows student="$pair/student" output="$runs/sft"
  skd train recipes/real_data/skd.yaml $rows teacher="$runs/teacher/student" student="$runs/sft/student" output="$runs/skd"
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
