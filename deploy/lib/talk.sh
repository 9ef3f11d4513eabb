# shellcheck shell=bash
# Messages of deploy.sh: progress on stdout, warnings and errors on stderr; colour only on a terminal.

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

# indent: mark the output of another program
indent() { sed 's/^/        | /'; }

# quoted TEXT: the same for TEXT, on lines below a message
quoted() { printf '\n' && indent <<<"$1"; }
