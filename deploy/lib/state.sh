# shellcheck shell=bash
# What outlives one run: the lock, the history, and the trace of a deployment that was killed.

# state_folder: `state`, a folder of this user alone, in which no other user can hold the lock or
# put a link in place of a file
state_folder() {
	local home=~
	state=${XDG_STATE_HOME:-$home/.local/state}/kronos-deploy
}

# lock: one deployment of a project at a time. The lock is the kernel's: it is gone when we are.
lock() {
	command -v flock >/dev/null || die 3 "there is no flock command here (util-linux)"
	state_folder
	(umask 077 && mkdir -p -- "$state") || die 3 "cannot make $state"
	[ ! -L "$state" ] && [ -O "$state" ] ||
		die 3 "$state must be a folder that belongs to this user (see XDG_STATE_HOME)"
	chmod 700 "$state"
	exec 9>>"$state/$project.lock" || die 3 "cannot write $state/$project.lock"
	flock --nonblock 9 || die 6 "another deployment of project $project is in progress"
	recording=yes
}

# record STATUS: one line of the history for this run
record() {
	local outcome=deployed name=${named:--}
	if [ "$1" -ge 128 ]; then
		outcome=interrupted
	elif [ "$1" -ne 0 ]; then
		outcome=failed
	elif [ "$phase" = before ]; then
		outcome=unchanged
	elif [ -n "$rollback" ]; then
		outcome=rolled-back
	fi
	[ -z "${target:-}" ] || name=$(describe "$target")
	printf '%(%Y-%m-%dT%H:%M:%S%z)T  %-11s  exit %-3s  %4d s  %s replicas  %s  before: %s  by %s\n' \
		-1 "$outcome" "$1" "$SECONDS" "${replicas:--}" "$name" \
		"$([ -n "${ran:-}" ] && describe "$ran" || printf -- -)" "$(id -un)" >>"$state/$project.history"
}

# While replicas are replaced, this tag names the image that ran before. If it is there when a
# deployment starts, the one before was killed.
trace() { printf '%s:deploying-from' "$repository"; }

# recover: `interrupted` is the image that ran before a deployment that was killed, if one was.
# The tag that it may have lent is given back; its replicas are sorted out as all others are.
recover() {
	local tag
	interrupted=$(id_of "$(trace)")
	[ -z "$interrupted" ] ||
		warn "the latest deployment did not end; before it ran $(describe "$interrupted")"
	[ -z "$dry_run" ] || return 0
	# Builds that were killed may have left the names of their results.
	for tag in $(docker image ls --format '{{.Tag}}' "$repository"); do
		case $tag in
		new) ;;
		dry-run-*) ! kill -0 "${tag#dry-run-}" 2>/dev/null || continue ;;
		*) continue ;;
		esac
		docker image rm --no-prune "$repository:$tag" >/dev/null || true
	done
	[ -z "$interrupted" ] || docker tag "$interrupted" "$reference"
}

# leave_trace, remove_trace: around the replacement of replicas
leave_trace() { [ -z "$before" ] || docker tag "$before" "$(trace)"; }
remove_trace() {
	if [ -n "$(id_of "$(trace)")" ]; then docker image rm --no-prune "$(trace)" >/dev/null; fi
}
