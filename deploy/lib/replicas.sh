# shellcheck shell=bash
# One replica of the service at a time: what it is, whether it does well, how it goes.

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

# up_to_date ID: it is of the image to deploy, made with the settings of now, and callers find it
up_to_date() {
	[ "$(about "$1" '{{.Image}} {{index .Config.Labels "com.docker.compose.config-hash"}}')" = \
		"$target $wanted_hash" ] && { [ -z "$network" ] || [ -n "$(aliases_of "$1")" ]; }
}

# Callers find a replica by the aliases it has on their network. A new one gets them only when it
# has proved itself: until then it is on the other network alone, where Redis is.
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

# show ID: callers find it from now on; when we return, so does nginx, which counts in whole seconds
# and so remembers what DNS said, `valid=1s`, for up to two
show() {
	local alias options=()
	[ -n "${hidden[$1]:-}" ] || return 0
	for alias in ${hidden[$1]}; do options+=(--alias "$alias"); done
	docker network connect "${options[@]}" "$network" "$1"
	unset "hidden[$1]"
	sleep 3
}

# become_healthy ID: wait for it; `problem` tells why it did not. A container that ends is known
# at once, by its state or because Docker has started it again. One that is unhealthy may have been
# given less time by its health check than by DEPLOY_TIMEOUT, and become healthy yet.
become_healthy() {
	local health restarts began=$SECONDS told=$SECONDS deadline=$((SECONDS + DEPLOY_TIMEOUT))
	while true; do
		health=$(health_of "$1")
		restarts=$(about "$1" '{{.RestartCount}}') || restarts=0
		case $health:$restarts in
		healthy:0) return 0 ;;
		removed:*) problem="was removed by someone else" && return 1 ;;
		exited:* | dead:* | restarting:* | *:[1-9]*) problem="ends instead of serving" && return 1 ;;
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

# retire ID: SIGTERM, and the time it was given to finish what it has accepted
retire() {
	local code name
	name=$(name_of "$1")
	say "$name finishes"
	docker stop "$1" >/dev/null || [ "$(health_of "$1")" = removed ]
	code=$(about "$1" '{{.State.ExitCode}}') || code=0
	[ "$code" != 137 ] || warn "$name was killed: it did not finish in the time it was given"
}

# last_words ID: what it logged last
last_words() {
	printf 'the last lines of its log:\n' | indent >&2
	docker logs --tail 15 "$1" 2>&1 | indent >&2
}
