# shellcheck shell=bash
# Checks before anything changes.

readonly ENGINE_NEEDED=25.0 COMPOSE_NEEDED=2.20 DISK_NEEDED_GB=5 MEMORY_NEEDED_MB=1024

compose() { docker compose "$@"; }

# value NAME: the variable as compose reads it from the environment or .env; empty if unset. A compose
# file made for the purpose is evaluated, so that compose's own rules for .env hold.
value() {
	local answer
	# shellcheck disable=SC2016 # compose is to expand it
	answer=$(printf 'services: {value: {image: "=${%s-}"}}' "$1" |
		compose --project-directory . --project-name value --file - config --images) || return
	printf '%s' "${answer#=}"
}

# Settings that were renamed, old=new; the old names are accepted throughout version 0.2.
readonly RENAMED="KRONOS_ANSWER_TIMEOUT=KRONOS_SEND_TIMEOUT KRONOS_MAX_WORK=KRONOS_MAX_DECODE_STEPS"

# at_least VERSION WANTED
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# check_names: warn of names in .env that are not settings, and of old names of settings. Compose
# passes the names that it knows and drops the others silently; .env.example has all of them.
check_names() {
	local kind name other
	[ -f .env ] || return 0
	while read -r kind name other; do
		case $kind in
		renamed) warn ".env: $name was renamed to $other and is accepted until version 0.3: rename it" ;;
		both) warn ".env: $name is ignored, because its new name $other is set too: remove $name" ;;
		*) warn ".env: '$name' is not a setting and changes nothing${other:+; did you mean $other?}" ;;
		esac
	done < <(awk -v renamed="$RENAMED" '
		function distance(a, b,    i, j, row, last, cost) {
			for (j = 0; j <= length(b); j++) row[j] = j
			for (i = 1; i <= length(a); i++) {
				last = row[0]; row[0] = i
				for (j = 1; j <= length(b); j++) {
					cost = last + (substr(a, i, 1) != substr(b, j, 1)); last = row[j]
					if (row[j] + 1 < cost) cost = row[j] + 1
					if (row[j - 1] + 1 < cost) cost = row[j - 1] + 1
					row[j] = cost
				}
			}
			return row[length(b)]
		}
		BEGIN {
			count = split(renamed, pairs, " ")
			for (n = 1; n <= count; n++) { split(pairs[n], pair, "="); old[n] = pair[1]; new[old[n]] = pair[2] }
		}
		!match($0, /^[ \t]*(export[ \t]+)?[A-Za-z_][A-Za-z0-9_]*[ \t]*=/) { next }
		{ name = $0; sub(/[ \t]*=.*/, "", name); sub(/^[ \t]*(export[ \t]+)?/, "", name) }
		FNR == NR { known[name]; next }
		!/=[ \t]*$/ { given[name] }
		name in new { next }
		name ~ /^(KRONOS|GUNICORN|DEPLOY)_/ && !(name in known) {
			best = 5; near = ""
			for (one in known) if ((d = distance(name, one)) < best) { best = d; near = one }
			print "unknown", name, near
		}
		END {
			for (n = 1; n <= count; n++)
				if (old[n] in given) print (new[old[n]] in given ? "both" : "renamed"), old[n], new[old[n]]
		}' .env.example .env)
}

check_engine() {
	local version problem
	command -v docker >/dev/null || die 3 "docker not found: install Docker Engine $ENGINE_NEEDED or newer"
	version=$(docker version --format '{{.Server.Version}}' 2>/dev/null) || {
		problem=$(docker version --format '{{.Server.Version}}' 2>&1 | tail -n 1) || true
		die 3 "the Docker engine does not answer: $problem"
	}
	at_least "$version" "$ENGINE_NEEDED" ||
		die 3 "Docker engine $version is too old: $ENGINE_NEEDED or newer is needed"
	say "Docker engine $version"
	version=$(compose version --short 2>/dev/null) || die 3 "docker has no compose plugin: install docker compose $COMPOSE_NEEDED or newer"
	at_least "${version#v}" "$COMPOSE_NEEDED" ||
		die 3 "docker compose $version is too old: $COMPOSE_NEEDED or newer is needed"
	say "docker compose $version"
	[ -n "$rollback$image$show" ] || docker buildx version >/dev/null 2>&1 ||
		die 3 "docker has no buildx plugin, which building an image needs: install docker-buildx"
}

# The compose files and .env, as far as they can be judged without the image.
check_settings_of_compose() {
	check_names
	compose config --quiet || die 3 "docker compose rejects the compose files or .env, for the reason above"
	# A name that could be a number or a truth value is in quotes.
	project=$(compose config | sed -n 's/^name: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p')
	reference=$(value KRONOS_IMAGE)
	reference=${reference:-kronos-api:current}
	repository=${reference%:current}
	[ "$repository" != "$reference" ] ||
		die 3 "KRONOS_IMAGE=$reference must end in :current, the tag that a deployment moves;" \
			"use --image to deploy an image of another name"
	network=$(value KRONOS_NETWORK)
	network=${network:-kronos-internal}
	services=" $(compose config --services | tr '\n' ' ')"
	[[ $services == *" $service "* ]] || die 3 "the compose files have no service $service"
	say "settings of project $project"
}

# Disk for one more image, and memory for one more replica. Skipped for a remote engine, whose disk
# and memory cannot be read.
check_room() {
	local root free available
	root=$(docker info --format '{{.DockerRootDir}}')
	if [ -d "$root" ]; then
		free=$(($(df -Pk -- "$root" | awk 'NR == 2 {print $4}') / 1024 / 1024))
		[ "$free" -ge "$DISK_NEEDED_GB" ] ||
			die 3 "disk nearly full: $free GB free in $root, $DISK_NEEDED_GB GB needed; free some with docker image prune"
		say "$free GB free on the engine's disk"
		available=$(awk '$1 == "MemAvailable:" {print int($2 / 1024)}' /proc/meminfo 2>/dev/null) || true
		[ "${available:-$MEMORY_NEEDED_MB}" -ge "$MEMORY_NEEDED_MB" ] ||
			warn "memory nearly full: $available MB available, $MEMORY_NEEDED_MB MB recommended, because a new" \
				"replica runs beside the old one for a while"
	fi
}

# container_of SERVICE: sets `arguments` to those of `docker run` for the container that compose would
# create for SERVICE, without a network and with existing volumes only: a check creates neither. The
# image to deploy, which has Python, reads the configuration that compose prints.
container_of() {
	local code volumes
	code=$(cat deploy/lib/run_arguments.py)
	mapfile -t volumes < <(docker volume ls --quiet)
	mapfile -d '' arguments < <(KRONOS_IMAGE=$target compose config --format json |
		docker run --rm --interactive --network none --entrypoint python "$target" -c "$code" "$1" \
			"${volumes[@]+"${volumes[@]}"}")
	[ "${#arguments[@]}" -gt 0 ] || die 3 "image $named cannot run Python, which the check of the settings needs"
}

# check_service: settings and checkpoint, checked by the image to deploy
check_service() {
	local output arguments
	container_of "$service"
	output=$(docker run --rm "${arguments[@]}" kronos-api check </dev/null 2>&1) ||
		die 3 "the service would not start with these settings:$(quoted "$output")"
	say "settings and checkpoint: ${output##*$'\n'}"
}
