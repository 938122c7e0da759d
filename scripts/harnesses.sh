#!/usr/bin/env bash
# Shows that other harnesses run: each in a virtual environment of its own (.venv-harness-NAME), without network once it is made.
#
#   scripts/harnesses.sh [NAME...]          scripts/harnesses.sh lm-eval
#
# Without a name: all of them. SAMPLES=4 makes each run shorter; CHECKPOINT names another checkpoint than the shipped one.
set -euo pipefail
# shellcheck source=scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
cd "$ROOT"

ALL=(lm-eval lighteval inspect serve)
SAMPLES=${SAMPLES:-20}
CHECKPOINT=${CHECKPOINT:-checkpoints/infini-demo}
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# use NAME EXTRAS: the harness's environment, first on the PATH.
use() {
    local environment=$ROOT/.venv-harness-$1
    HF_HUB_OFFLINE=0 setup_environment "$environment" "$2"
    export PATH="$environment/bin:$PATH"
}

# Generation, multiple choice and rolling perplexity, memory on and ablated; then RULER's tasks of noise, whose haystack is
# one sentence again and again: lm-eval makes them itself, and looks for NLTK's sentence splitter, which these do not use.
lm-eval() {
    local memory out=results/harnesses/lm-eval
    use lm-eval lm-eval,tasks
    python examples/harnesses/lm-eval/make_data.py --tokenizer "$CHECKPOINT" --samples "$SAMPLES"
    for memory in on ablate; do
        say "lm-eval, memory $memory"
        infini-eval lm-eval --model infini --model_args "pretrained=$CHECKPOINT,memory=$memory" --device cuda \
            --include_path examples/harnesses/lm-eval --tasks demo_passkey,demo_passkey_choice,demo_text \
            --output_path "$out/$memory"
    done
    say "lm-eval's own RULER, 1,024 tokens of noise"
    run_pip "$ROOT/.venv-harness-lm-eval" nltk nltk
    mkdir -p "$out/nltk_data/tokenizers/punkt_tab"
    NLTK_DATA=$ROOT/$out/nltk_data infini-eval lm-eval --model infini --tasks niah_single_1 --limit "$SAMPLES" \
        --model_args "pretrained=$CHECKPOINT,tokenizer=$CHECKPOINT/tokenizer" --metadata '{"max_seq_lengths":[1024]}' \
        --output_path "$out/ruler"
}

# The same tasks by lm-eval's own model local-completions, which asks our server: for every harness that knows no model of ours.
serve() {
    local out=results/harnesses/serve port=${PORT:-8472}
    use lm-eval lm-eval,tasks
    run_pip "$ROOT/.venv-harness-lm-eval" "what lm-eval asks servers with" -c "$ROOT/constraints.txt" aiohttp tenacity fastapi uvicorn
    python examples/harnesses/lm-eval/make_data.py --tokenizer "$CHECKPOINT" --samples "$SAMPLES"
    mkdir -p "$out"
    infini-eval serve "$CHECKPOINT" --port "$port" --model-name demo >"$out/server.log" 2>&1 &
    server=$! # not local: the trap runs when this function is over
    trap 'kill "$server" 2>/dev/null; wait "$server"' EXIT
    until grep -q '^serving' "$out/server.log"; do
        kill -0 "$server" 2>/dev/null || fail "the server did not start: $(tail -n 3 "$out/server.log")"
        sleep 1
    done
    lm_eval --model local-completions --include_path examples/harnesses/lm-eval \
        --tasks demo_passkey,demo_passkey_choice,demo_text --batch_size 4 --output_path "$out" --model_args \
        "model=demo,base_url=http://127.0.0.1:$port/v1/completions,tokenizer=$CHECKPOINT/tokenizer,num_concurrent=8,max_length=100000"
}

# A generated passkey set as a task of Inspect, memory on and ablated, beside our own runs on it; these as Inspect's logs; the
# tests of both. `command` calls Inspect's program, not this function.
inspect() {
    local memory out=results/harnesses/inspect
    use inspect inspect
    run_pip "$ROOT/.venv-harness-inspect" "what the tests need" -c constraints.txt hypothesis pytest pytest-timeout
    rm -rf "$out"
    infini-eval generate --tokenizer_path "$CHECKPOINT" --context_length 1k --depths 0:100:25 --num_prompts $(((SAMPLES + 4) / 5)) \
        --num_digits 4,5 --save_path "$out/data" --quiet
    for memory in on ablate; do
        say "Inspect, memory $memory"
        command inspect eval examples/harnesses/inspect/long_context.py -T data="$ROOT/$out/data" --display plain \
            --model "infini/$CHECKPOINT" -M memory=$memory --log-dir "$out/logs-$memory"
        infini-eval run --task passkey --model "$CHECKPOINT" --eval_dataset_path "$out/data" --memory $memory \
            --save_path "$out/runs/$memory" --quiet
    done
    infini-eval export "$out/runs" --format inspect --output "$out/logs-ours"
    python - "$out" <<'PYTHON'
import sys
from inspect_ai.log import list_eval_logs, read_eval_log

logs = {name: list_eval_logs(f"{sys.argv[1]}/logs-{name}") for name in ("on", "ablate", "ours")}
mean = {name: sorted(read_eval_log(log).results.scores[0].metrics["mean"].value for log in logs[name]) for name in logs}
print(f"accuracy: {mean['on'][0]:.2f} with the memory, {mean['ablate'][0]:.2f} ablated; our own runs: {mean['ours']}")
if mean["ours"] != sorted([*mean["ablate"], *mean["on"]]):
    sys.exit("Inspect and our own runs differ")
PYTHON
    python -m pytest -q -p no:cacheprovider tests/harnesses/test_inspect.py tests/exports/test_inspect.py
}

# The same questions as lighteval's tasks. It starts with all tasks it knows, one of which fetches a file that is read only where that
# task is scored; an empty one stands in its place.
lighteval() {
    local memory name out=results/harnesses/lighteval
    use lighteval lighteval
    python examples/harnesses/lm-eval/make_data.py --tokenizer "$CHECKPOINT" --samples "$SAMPLES"
    for name in passkey choice text; do
        mkdir -p "$out/$name"
        cp "results/harnesses/lm-eval/$name.jsonl" "$out/$name/test.jsonl"
    done
    touch "$(python -c 'import importlib.util as u; print(u.find_spec("lighteval").submodule_search_locations[0])')/tasks/tasks/tinyBenchmarks.pkl"
    for memory in on ablate; do
        say "lighteval, memory $memory"
        command lighteval custom "$CHECKPOINT?memory=$memory" examples/harnesses/lighteval/infini_model.py \
            "demo_passkey|0,demo_choice|0,demo_text|0" --custom-tasks examples/harnesses/lighteval/tasks.py --output-dir "$out/$memory"
    done
}

[ $# -gt 0 ] || set -- "${ALL[@]}"
for name in "$@"; do
    [[ " ${ALL[*]} " == *" $name "* ]] || fail "unknown harness $name" "one of: ${ALL[*]}"
    (say "$name" && "$name")
done
