#!/usr/bin/env bash
# test: slow
# Real coding agents, headless (agents.mjs), against flashchat serve with the bundled model on loopback: each completes a
# turn, has its tool called and sends the result back, and goes on without the prompt being computed again.
#
# The agents come from npm (1.1 GB on disk) into build/clients, once; FM_CLIENTS names another folder, FM_CLIENTS_ONLY the
# agents to run. An agent that cannot be installed or started here is a SKIP, one that fails is a failure. Each gets a
# home of its own. The model was trained on 2,048 tokens and the agents' first prompts have 9,000 to 25,000: what it
# says is poor, the protocol is what is tested.
# shellcheck source=tests/server/lib.sh
. "$(dirname "$0")/../server/lib.sh"
folder=${FM_CLIENTS:-$BUILD/clients}
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
seconds=${FM_CLIENTS_SECONDS:-180} # for installing all of them, and for each run of one
[ -z "${FM_TEST_FAST:-}" ] || { echo "SKIP agents: real agents take minutes"; exit 0; }
command -v npm >/dev/null || { echo "SKIP agents: no npm"; exit 0; }
[ -x "$BUILD/flashchat-test" ] || { echo "SKIP agents: $BUILD/flashchat-test is not built"; exit 0; }

# name, package (the versions that were tried), what must be run where npm blocks install scripts
agents() {
    cat <<'END'
opencode opencode-ai@1.18.33 postinstall.mjs
codex @openai/codex@0.169.0 -
claude @anthropic-ai/claude-code@2.1.197 install.cjs
qwen @qwen-code/qwen-code@0.15.10 -
END
}

# Into a folder of its own, so that one that fails does not take the others along. The stamp names the version.
install() { # name, package, script
    local dir=$folder/$1 home=$work/npm-$1
    [ "$(cat "$dir/installed" 2>/dev/null)" = "$2" ] && return 0
    rm -rf "$dir"
    mkdir -p "$dir" "$home"
    echo '{"private": true}' >"$dir/package.json"
    (
        cd "$dir" || exit 1
        HOME=$npm_home timeout -k 5 "$seconds" npm install --no-audit --no-fund --no-update-notifier \
            --cache "$home/cache" --loglevel=error "$2" || exit 1
        [ "$3" = - ] || (cd "node_modules/${2%@*}" && timeout -k 5 60 node "$3")
    ) >"$dir/log" 2>&1 </dev/null || return 1
    rm -rf "$home"
    echo "$2" >"$dir/installed"
}

# npm reads its own settings (mirrors, certificates) from the real home; nothing else does.
npm_home=$real_home
begin=$(date +%s)
pids=()
while read -r name package script; do
    case " ${FM_CLIENTS_ONLY:-$name} " in *" $name "*) ;; *) continue ;; esac
    install "$name" "$package" "$script" &
    pids+=($!)
done < <(agents)
[ ${#pids[@]} = 0 ] || wait "${pids[@]}"
echo "  installing: $(($(date +%s) - begin)) s"
begin=$(date +%s)

finish_agents() {
    [ -z "${agent_pid:-}" ] || kill -TERM "$agent_pid" 2>/dev/null
    finish
}
trap finish_agents EXIT
trap 'exit 1' TERM INT HUP

start_serve --model assets/ember --context 65536 --scripted-reply tests/clients/agents.json --log-dir "$work/log"
while read -r name package _; do
    case " ${FM_CLIENTS_ONLY:-$name} " in *" $name "*) ;; *) continue ;; esac
    if [ "$(cat "$folder/$name/installed" 2>/dev/null)" != "$package" ]; then
        echo "SKIP agents: $name: $package could not be installed: $(tail -n 1 "$folder/$name/log" | cut -c 1-120)"
        continue
    fi
    # Tests get 900 s each (tests/run.sh); an agent that cannot have its time is not begun.
    if [ $(($(date +%s) - begin)) -gt "${FM_CLIENTS_BEGIN:-260}" ]; then
        echo "SKIP agents: $name: the ones before it took so long on this machine"
        continue
    fi
    if ! HOME=$work timeout 60 "$folder/$name/node_modules/.bin/$name" --version >"$work/version" 2>&1 </dev/null; then
        echo "SKIP agents: $name: does not start on this machine: $(tail -n 1 "$work/version" | cut -c 1-120)"
        continue
    fi
    mkdir "$work/$name"
    AGENT_SECONDS=$seconds node tests/clients/agents.mjs "$U" "$folder/$name/node_modules/.bin" "$work/$name" "$name" \
        </dev/null &
    agent_pid=$!
    wait $agent_pid
    agent_pid=
done < <(agents)
ok "agents: the server ends cleanly" stop_server
nothing_left() { ! pgrep -f "$work" -a | grep -v "^$$ "; }
ok "agents: nothing is left running" nothing_left
