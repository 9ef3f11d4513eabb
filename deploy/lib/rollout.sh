# shellcheck shell=bash
# From the replicas that run to those that shall run, one by one, and back if a new one fails.
# Old replicas are stopped but not removed before all new ones do well, so that going back is to
# start them again, as they were.

phase=before
kept=() old=() new=() retired=() leftovers=()
declare -A was=()
wanted_hash=
before= ran= interrupted=

# How many replicas shall run: what was asked for, else the setting, else as many as the oldest one
# was told, else as many as there are. A deployment that was killed leaves old ones that have ended
# beside new ones that run: counted, they would be more with each.
choose_replicas() {
	local there
	there=$(ids status=running status=restarting status=paused status=exited)
	replicas=${replicas:-$(value KRONOS_REPLICAS)}
	replicas=${replicas:-$(told "$there")}
	replicas=${replicas:-$(wc -w <<<"$there")}
	if ! [ "$replicas" -gt 0 ] 2>/dev/null; then replicas=1; fi
	export KRONOS_REPLICAS=$replicas
	wanted_hash=$(compose config --hash "$service" | awk '{print $2}')
}

# told IDS: how many replicas there are, as the first of these was told
told() {
	local format='{{range .Config.Env}}{{println .}}{{end}}'
	about "${1%%$'\n'*}" "$format" | sed -n 's/^KRONOS_REPLICAS=//p' || true
}

# sort_out: which replicas stay and which go; those that do not run are leftovers. `ran` is the image
# that ran before, `before` the same if it is not the one to deploy.
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
	# What a deployment that was killed had begun to run is not what ran before.
	ran=${interrupted:-${ran:-$ended}}
	[ "$ran" = "$target" ] || before=$ran
}

# settled: whether nothing is left to do
settled() { [ "$((missing + ${#old[@]} + ${#leftovers[@]}))" -eq 0 ]; }

plan() {
	sort_out
	if settled; then
		say "nothing to do: $replicas healthy replicas run this image with these settings"
	else
		say "would start $missing, stop ${#old[@]} and remove ${#leftovers[@]} that do not run," \
			"for $replicas replicas of $named"
	fi
}

# start_beside: what the service needs or the compose files add, made anew where it has changed
start_beside() {
	local other output others=()
	for other in $services; do
		# The smoke test of compose is for a start by compose: each new replica gets its own.
		case $other in "$service" | nginx | smoke) ;; *) others+=("$other") ;; esac
	done
	[ "${#others[@]}" -gt 0 ] || return 0
	output=$(compose up --detach --no-deps --wait "${others[@]}" 2>&1) ||
		die 5 "not healthy, and the service was not touched: ${others[*]}$(quoted "$output")"
	say "healthy: ${others[*]}"
}

roll_out() {
	local id running started=0
	sort_out
	if settled; then
		point_tags
		say "nothing to do: $replicas healthy replicas run this image with these settings"
		return
	fi
	phase=rolling
	leave_trace
	say "$replicas replicas of $named: ${#kept[@]} up to date, $missing to start, ${#old[@]} to stop," \
		"${#leftovers[@]} that do not run to remove"
	make_new
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

# make_new: make what is missing, without starting it
make_new() {
	local id known output='' status=0
	if [ "${#leftovers[@]}" -gt 0 ]; then
		docker rm --force "${leftovers[@]}" >/dev/null
	fi
	[ "$missing" -gt 0 ] || return 0
	known=" $(ids | tr '\n' ' ')"
	# `up --no-start --no-deps` would do, but makes them with another digest of their settings.
	as_target create --no-recreate --no-build \
		--scale "$service=$((${#kept[@]} + ${#old[@]} + missing))" "$service" || status=$?
	# Also when it failed, so that what it did make is removed.
	for id in $(ids); do
		[[ $known == *" $id "* ]] || new+=("$id")
	done
	[ "$status" -eq 0 ] ||
		die 5 "docker compose could not make the new replicas:$(quoted "$output")"
	[ "${#new[@]}" -eq "$missing" ] ||
		die 5 "docker compose made ${#new[@]} new replicas instead of $missing"
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
	# Written down first: whoever interrupts us now finds it where it is brought back.
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

# point_tags: `:current` is what runs, `:previous` what ran before, if that was another. It is last:
# a deployment that was killed before it leaves its trace, and the next one does it.
point_tags() {
	if [ -n "$before" ]; then docker tag "$before" "$repository:previous"; fi
	docker tag "$target" "$reference"
	remove_trace
}

# finish: on every way out; an unfinished roll-out is undone
finish() {
	local status=$?
	# A reader of our output that has gone does not end us either.
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
		*) complain "interrupted after all replicas were replaced; run it again for the rest" ;;
		esac
	fi
	[ -z "${recording:-}" ] || record "$status"
	exit "$status"
}

# restore: the old replicas run again before the new ones go; fails where that did not succeed
restore() {
	local id status=0
	phase=undone
	say "going back to what ran before"
	if [ -n "${failed:-}" ]; then docker rm --force "$failed" >/dev/null; fi
	for id in ${retired[@]+"${retired[@]}"}; do
		# It may be at its end but not ended yet, and only then can be started.
		docker stop "$id" >/dev/null
		problem="could not be started"
		if [ "${was[$id]}" = healthy ]; then hide "$id"; fi
		if docker start "$id" >/dev/null; then
			[ "${was[$id]}" = healthy ] || continue
			become_healthy "$id" && show "$id" && continue
		fi
		complain "$(name_of "$id") $problem"
		status=1
		# It may serve yet, if it is only late; the gateway passes over it until then.
		show "$id"
	done
	if [ "$status" -ne 0 ]; then
		complain "what ran before could not be brought back; new replicas that were healthy still run"
		complain "see docker ps --all, and run ./deploy.sh --image with an image that is known to work"
		return 1
	fi
	for id in ${new[@]+"${new[@]}"}; do
		if [ "$id" != "${failed:-}" ]; then
			docker stop "$id" >/dev/null
			docker rm --force "$id" >/dev/null
		fi
	done
	[ -n "$interrupted" ] || remove_trace
	warn "rolled back: $((${#kept[@]} + ${#old[@]} + ${#retired[@]})) replicas run as before," \
		"of $(describe "${ran:-$target}"); $reference was not changed"
}
