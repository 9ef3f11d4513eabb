# shellcheck shell=bash
# What deploy.sh tells: progress on stdout, what is wrong on stderr; colour on a terminal alone.

red='' yellow='' green='' plain=''
if [ -t 1 ] && [ -t 2 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
	red=$'\e[31m' yellow=$'\e[33m' green=$'\e[32m' plain=$'\e[0m'
fi

say() { printf '%sdeploy  %(%H:%M:%S)T%s  %s\n' "$green" -1 "$plain" "$*"; }
warn() { printf '%sdeploy  %s%s\n' "$yellow" "$*" "$plain" >&2; }
complain() { printf '%sdeploy  %s%s\n' "$red" "$*" "$plain" >&2; }

# die STATUS MESSAGE...
die() {
	complain "${@:2}"
	exit "$1"
}

# indent: what another program said, told apart from what we say
indent() { sed 's/^/        | /'; }

# quoted TEXT: the same, on lines of its own after what we say
quoted() { printf '\n' && indent <<<"$1"; }
