# shellcheck shell=bash
# One replica of the service: its state, its health, its end.

# ids [FILTER...]: containers of the service, the oldest first
ids() {
	local filter filters=()
	for filter in "$@"; do filters+=(--filter "$filter"); done
	docker ps --all --quiet --no-trunc "${filters[@]+"${filters[@]}"}" \
		--filter "label=com.docker.compose.project=$project" \
		--filter "label=com.docker.compose.service=$service" \
		--filter "label=com.docker.compose.oneoff=False" | tac
}

# about ID FORMAT
about() { docker inspect --type container --format "$2" "$1" 2>/dev/null; }

name_of() {
	local name
	name=$(about "$1" '{{.Name}}') || name=${1:0:12}
	printf '%s' "${name#/}"
}

# health_of ID: one word for how it is
health_of() {
	local format='{{if not .State.Running}}{{.State.Status}}{{else if .State.Restarting}}restarting'
	format+='{{else if .State.Paused}}paused{{else if .State.Health}}{{.State.Health.Status}}'
	format+='{{else}}unchecked{{end}}'
	about "$1" "$format" || printf removed
}

# up_to_date ID: it has the image to deploy and the present settings, and callers can resolve it
up_to_date() {
	[ "$(about "$1" '{{.Image}} {{index .Config.Labels "com.docker.compose.config-hash"}}')" = \
		"$target $wanted_hash" ] && { [ -z "$network" ] || [ -n "$(aliases_of "$1")" ]; }
}

# Callers resolve a replica by its aliases on their network. A new one gets them when it is healthy and
# has passed the smoke test; until then it is on the network of Redis alone.
declare -A hidden=()

# aliases_of ID
aliases_of() {
	about "$1" "{{with index .NetworkSettings.Networks \"$network\"}}{{join .Aliases \" \"}}{{end}}"
}

# hide ID: while it does not run
hide() {
	local aliases networks
	aliases=$(aliases_of "$1")
	networks=$(about "$1" '{{len .NetworkSettings.Networks}}')
	if [ -n "$aliases" ] && [ "$networks" -gt 1 ]; then
		hidden[$1]=$aliases
		docker network disconnect "$network" "$1"
	fi
}

# show ID: give it its aliases; returns when nginx resolves it too, which caches DNS for up to two
# seconds (`valid=1s`, counted in whole seconds)
show() {
	local alias options=()
	[ -n "${hidden[$1]:-}" ] || return 0
	for alias in ${hidden[$1]}; do options+=(--alias "$alias"); done
	docker network connect "${options[@]}" "$network" "$1"
	unset "hidden[$1]"
	sleep 3
}

# become_healthy ID: wait for it; on failure `problem` has the reason. A container that exits is noticed
# at once, by its state or its restart count. An unhealthy one can still become healthy where its health
# check allows less time than DEPLOY_TIMEOUT.
become_healthy() {
	local health restarts began=$SECONDS told=$SECONDS deadline=$((SECONDS + DEPLOY_TIMEOUT))
	while true; do
		health=$(health_of "$1")
		restarts=$(about "$1" '{{.RestartCount}}') || restarts=0
		case $health:$restarts in
		healthy:0) return 0 ;;
		removed:*) problem="was removed during the deployment, not by deploy.sh" && return 1 ;;
		exited:* | dead:* | restarting:* | *:[1-9]*) problem="exited during its start" && return 1 ;;
		unchecked:*) problem="has no health check" && return 1 ;;
		esac
		if [ "$SECONDS" -ge "$deadline" ]; then
			problem="did not become healthy within $DEPLOY_TIMEOUT s"
			[ "$health" != unhealthy ] || problem="is unhealthy after $DEPLOY_TIMEOUT s"
			return 1
		fi
		if [ $((SECONDS - told)) -ge 15 ]; then
			told=$SECONDS
			say "$(name_of "$1") is $health after $((told - began)) of $DEPLOY_TIMEOUT s"
		fi
		sleep 0.5
	done
}

# pass_smoke ID: the smoke test from inside; its output if it fails
pass_smoke() {
	local output port
	port=$(docker exec "$1" printenv KRONOS_PORT) || port=
	output=$(docker exec --interactive "$1" bash -s -- "http://127.0.0.1:${port:-8000}" \
		<tests/smoke/test_smoke.sh 2>&1) && return
	problem="failed the smoke test"
	indent <<<"$output" >&2
	return 1
}

# retire ID: SIGTERM, then KRONOS_STOP_GRACE to finish accepted requests
retire() {
	local code name
	name=$(name_of "$1")
	say "$name is draining"
	docker stop "$1" >/dev/null || [ "$(health_of "$1")" = removed ]
	code=$(about "$1" '{{.State.ExitCode}}') || code=0
	[ "$code" != 137 ] || warn "$name was killed: it did not stop within KRONOS_STOP_GRACE"
}

# last_words ID: the end of its log
last_words() {
	printf 'last lines of its log:\n' | indent >&2
	docker logs --tail 15 "$1" 2>&1 | indent >&2
}
