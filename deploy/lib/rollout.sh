# shellcheck shell=bash
# Replaces the running replicas one by one, and rolls back if a new one fails. Old replicas are stopped
# but not removed until all new ones are healthy, so that a rollback only starts them again.

phase=before
kept=() old=() new=() retired=() leftovers=()
declare -A was=()
wanted_hash=
before= ran= interrupted=

# Number of replicas: --replicas, else KRONOS_REPLICAS, else the KRONOS_REPLICAS of the oldest replica,
# else the present number. The count comes last: a killed deployment leaves stopped old replicas beside
# running new ones, and counting both would add replicas with each deployment.
choose_replicas() {
	local there
	there=$(ids status=running status=restarting status=paused status=exited)
	replicas=${replicas:-$(value KRONOS_REPLICAS)}
	replicas=${replicas:-$(configured "$there")}
	replicas=${replicas:-$(wc -w <<<"$there")}
	if ! [ "$replicas" -gt 0 ] 2>/dev/null; then replicas=1; fi
	export KRONOS_REPLICAS=$replicas
	wanted_hash=$(compose config --hash "$service" | awk '{print $2}')
}

# configured IDS: KRONOS_REPLICAS in the environment of the first of these
configured() {
	local format='{{range .Config.Env}}{{println .}}{{end}}'
	about "${1%%$'\n'*}" "$format" | sed -n 's/^KRONOS_REPLICAS=//p' || true
}

# sort_out: divide the replicas into kept, old and leftovers (not running). `ran` is the image that ran
# before, `before` the same unless it is the one to deploy.
sort_out() {
	local id health its_image ended=
	for id in $(ids); do
		its_image=$(about "$id" '{{.Image}}') || continue
		health=$(health_of "$id")
		if [ "$health" = starting ] && up_to_date "$id"; then
			say "$(name_of "$id") is starting"
			become_healthy "$id" || true
			health=$(health_of "$id")
		fi
		was[$id]=$health
		case $health in
		healthy | starting | unhealthy | unchecked)
			[ -n "$ran" ] && [ "$its_image" = "$target" ] || ran=$its_image
			if [ "$health" = healthy ] && up_to_date "$id" && [ "${#kept[@]}" -lt "$replicas" ]; then
				kept+=("$id")
			else
				old+=("$id")
			fi
			;;
		*) leftovers+=("$id") && ended=$its_image ;;
		esac
	done
	missing=$((replicas - ${#kept[@]}))
	# The image that a killed deployment had started is not the previous one.
	ran=${interrupted:-${ran:-$ended}}
	[ "$ran" = "$target" ] || before=$ran
}

# up_to_date_all: no replica to start, stop or remove
up_to_date_all() { [ "$((missing + ${#old[@]} + ${#leftovers[@]}))" -eq 0 ]; }

plan() {
	sort_out
	if up_to_date_all; then
		say "nothing to do: $replicas healthy replicas run this image with these settings"
	else
		say "would start $missing, stop ${#old[@]} and remove ${#leftovers[@]} that do not run," \
			"for $replicas replicas of $named"
	fi
}

# start_others: the other services of the compose files, recreated where their settings have changed
start_others() {
	local other output others=()
	for other in $services; do
		# The compose service `smoke` is for `docker compose up`; each new replica is tested below.
		case $other in "$service" | nginx | smoke) ;; *) others+=("$other") ;; esac
	done
	[ "${#others[@]}" -gt 0 ] || return 0
	output=$(compose up --detach --no-deps --wait "${others[@]}" 2>&1) ||
		die 5 "${others[*]} did not become healthy; the service was not touched:$(quoted "$output")"
	say "healthy: ${others[*]}"
}

roll_out() {
	local id running started=0
	sort_out
	if up_to_date_all; then
		point_tags
		say "nothing to do: $replicas healthy replicas run this image with these settings"
		return
	fi
	phase=rolling
	leave_trace
	say "$replicas replicas of $named: ${#kept[@]} up to date, $missing to start, ${#old[@]} to stop," \
		"${#leftovers[@]} that do not run to remove"
	create_new
	running=$((${#kept[@]} + ${#old[@]}))
	for id in ${new[@]+"${new[@]}"}; do
		started=$((started + 1))
		start_new "$id"
		running=$((running + 1))
		while [ "$running" -gt "$replicas" ] && [ "${#old[@]}" -gt 0 ]; do retire_one; done
	done
	while [ "${#old[@]}" -gt 0 ]; do retire_one; done
	for id in ${new[@]+"${new[@]}"}; do
		become_healthy "$id" || fail "$id"
	done
	phase=rolled
	if [ "${#retired[@]}" -gt 0 ]; then docker rm --force "${retired[@]}" >/dev/null; fi
	point_tags
	say "$replicas replicas of $(describe "$target") are running, after $SECONDS s"
}

# create_new: create the missing replicas without starting them
create_new() {
	local id known output='' status=0
	if [ "${#leftovers[@]}" -gt 0 ]; then
		docker rm --force "${leftovers[@]}" >/dev/null
	fi
	[ "$missing" -gt 0 ] || return 0
	known=" $(ids | tr '\n' ' ')"
	# Not `up --no-start --no-deps`: it creates them with another digest of their settings.
	as_target create --no-recreate --no-build \
		--scale "$service=$((${#kept[@]} + ${#old[@]} + missing))" "$service" || status=$?
	# Also when it failed, so that the replicas it did create are removed.
	for id in $(ids); do
		[[ $known == *" $id "* ]] || new+=("$id")
	done
	[ "$status" -eq 0 ] ||
		die 5 "docker compose could not create the new replicas:$(quoted "$output")"
	[ "${#new[@]}" -eq "$missing" ] ||
		die 5 "docker compose created ${#new[@]} new replicas instead of $missing"
}

start_new() {
	say "$(name_of "$1") starts ($started of $missing)"
	hide "$1"
	docker start "$1" >/dev/null || { problem="could not be started" && fail "$1"; }
	become_healthy "$1" || fail "$1"
	pass_smoke "$1" || fail "$1"
	show "$1"
	say "$(name_of "$1") is healthy and passes the smoke test"
}

retire_one() {
	# Recorded first, so that an interruption during the stop starts it again.
	retired+=("${old[0]}")
	old=("${old[@]:1}")
	retire "${retired[-1]}"
	running=$((running - 1))
}

fail() {
	complain "$(name_of "$1") $problem"
	last_words "$1" || true
	failed=$1
	exit 5
}

# point_tags: `:current` names the running image, `:previous` the one before, if it differs. Done last: a
# deployment killed before this leaves its trace, and the next one recovers from it.
point_tags() {
	if [ -n "$before" ]; then docker tag "$before" "$repository:previous"; fi
	docker tag "$target" "$reference"
	remove_trace
}

# finish: on every exit; rolls back an unfinished rollout
finish() {
	local status=$?
	# A closed output pipe must not interrupt the rollback either.
	trap '' HUP INT PIPE TERM
	set +e
	untag
	remove_built
	if [ "$phase" = rolling ]; then
		if [ "$status" -lt 128 ]; then status=5; fi
		restore || status=7
	elif [ "$status" -gt 128 ]; then
		case $phase in
		before) complain "interrupted; the service was not touched" ;;
		*) complain "interrupted after all replicas were replaced; run ./deploy.sh again to finish" ;;
		esac
	fi
	[ -z "${recording:-}" ] || record "$status"
	exit "$status"
}

# restore: start the old replicas, then remove the new ones; fails if an old one does not come back
restore() {
	local id status=0
	phase=undone
	say "rolling back to the previous replicas"
	if [ -n "${failed:-}" ]; then docker rm --force "$failed" >/dev/null; fi
	for id in ${retired[@]+"${retired[@]}"}; do
		# It can still be stopping, and starts only after that.
		docker stop "$id" >/dev/null
		problem="could not be started"
		if [ "${was[$id]}" = healthy ]; then hide "$id"; fi
		if docker start "$id" >/dev/null; then
			[ "${was[$id]}" = healthy ] || continue
			become_healthy "$id" && show "$id" && continue
		fi
		complain "$(name_of "$id") $problem"
		status=1
		# It can become healthy late; the gateway skips it until then.
		show "$id"
	done
	if [ "$status" -ne 0 ]; then
		complain "rollback failed: a previous replica could not be brought back; healthy new replicas keep running"
		complain "inspect docker ps --all, then run ./deploy.sh --image with an image known to work"
		return 1
	fi
	for id in ${new[@]+"${new[@]}"}; do
		if [ "$id" != "${failed:-}" ]; then
			docker stop "$id" >/dev/null
			docker rm --force "$id" >/dev/null
		fi
	done
	[ -n "$interrupted" ] || remove_trace
	warn "rolled back: $((${#kept[@]} + ${#old[@]} + ${#retired[@]})) replicas are running as before," \
		"of $(describe "${ran:-$target}"); $reference was not changed"
}
