# shellcheck shell=bash
# State across runs: the lock, the history, and the trace of a deployment that was killed.

# state_folder: sets `state`, a folder of this user alone, where no other user can hold the lock or
# replace a file by a link
state_folder() {
	local home=~
	state=${XDG_STATE_HOME:-$home/.local/state}/kronos-deploy
}

# lock: one deployment of a project at a time. The kernel drops the lock when this process ends.
lock() {
	command -v flock >/dev/null || die 3 "flock not found: install util-linux"
	state_folder
	(umask 077 && mkdir -p -- "$state") || die 3 "cannot create $state; XDG_STATE_HOME names another folder"
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

# While replicas are replaced, this tag names the previous image. If it exists when a deployment starts,
# the deployment before it was killed.
trace() { printf '%s:deploying-from' "$repository"; }

# recover: sets `interrupted` to the image that ran before a killed deployment, if there was one, and
# points `:current` back at it. sort_out then treats its replicas like all others.
recover() {
	local tag
	interrupted=$(id_of "$(trace)")
	[ -z "$interrupted" ] ||
		warn "the latest deployment was killed; the image before it was $(describe "$interrupted")"
	[ -z "$dry_run" ] || return 0
	# Killed builds leave their temporary tags.
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

# leave_trace, remove_trace: before and after replicas are replaced
leave_trace() { [ -z "$before" ] || docker tag "$before" "$(trace)"; }
remove_trace() {
	if [ -n "$(id_of "$(trace)")" ]; then docker image rm --no-prune "$(trace)" >/dev/null; fi
}
