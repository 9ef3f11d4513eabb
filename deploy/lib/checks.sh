# shellcheck shell=bash
# What has to hold before anything is changed.

readonly ENGINE_NEEDED=25.0 COMPOSE_NEEDED=2.20 DISK_NEEDED_GB=5 MEMORY_NEEDED_MB=1024

compose() { docker compose "$@"; }

# value NAME: what compose takes for that variable, from the environment or .env; else nothing.
# It is asked by a compose file of its own, so that we need not read .env by rules like its own.
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
	command -v docker >/dev/null || die 3 "there is no docker command here"
	version=$(docker version --format '{{.Server.Version}}' 2>/dev/null) || {
		problem=$(docker version --format '{{.Server.Version}}' 2>&1 | tail -n 1) || true
		die 3 "the Docker engine does not answer: $problem"
	}
	at_least "$version" "$ENGINE_NEEDED" ||
		die 3 "Docker engine $version is too old: $ENGINE_NEEDED or newer is needed"
	say "Docker engine $version"
	version=$(compose version --short 2>/dev/null) || die 3 "docker has no compose plugin"
	at_least "${version#v}" "$COMPOSE_NEEDED" ||
		die 3 "docker compose $version is too old: $COMPOSE_NEEDED or newer is needed"
	say "docker compose $version"
	[ -n "$rollback$image$show" ] || docker buildx version >/dev/null 2>&1 ||
		die 3 "docker has no buildx plugin, which it needs to build an image"
}

# The compose files and .env, as far as they can be judged without the image.
check_settings_of_compose() {
	check_names
	compose config --quiet || die 3 "docker compose does not accept the compose files or .env"
	# A name that could be a number or a truth value is in quotes.
	project=$(compose config | sed -n 's/^name: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p')
	reference=$(value KRONOS_IMAGE)
	reference=${reference:-kronos-api:current}
	repository=${reference%:current}
	[ "$repository" != "$reference" ] ||
		die 3 "KRONOS_IMAGE=$reference must end in :current, the tag that is moved (see --image)"
	network=$(value KRONOS_NETWORK)
	network=${network:-kronos-internal}
	services=" $(compose config --services | tr '\n' ' ')"
	[[ $services == *" $service "* ]] || die 3 "the compose files have no service $service"
	say "settings of project $project"
}

# Room on the disk for an image more, and memory for a replica more. An engine elsewhere is not
# asked: its disk and memory cannot be seen from here.
check_room() {
	local root free available
	root=$(docker info --format '{{.DockerRootDir}}')
	if [ -d "$root" ]; then
		free=$(($(df -Pk -- "$root" | awk 'NR == 2 {print $4}') / 1024 / 1024))
		[ "$free" -ge "$DISK_NEEDED_GB" ] ||
			die 3 "$free GB are free in $root; $DISK_NEEDED_GB GB are needed (docker image prune makes room)"
		say "$free GB free on the engine's disk"
		available=$(awk '$1 == "MemAvailable:" {print int($2 / 1024)}' /proc/meminfo 2>/dev/null) || true
		[ "${available:-$MEMORY_NEEDED_MB}" -ge "$MEMORY_NEEDED_MB" ] ||
			warn "$available MB of memory are left, and a new replica runs beside the old for a while"
	fi
}

# container_of SERVICE: `arguments` of `docker run` for a container as compose would make it of
# SERVICE, but on no network and with those volumes alone that exist: a check makes neither. The
# image to deploy, which has Python, reads what compose makes of the files and settings.
container_of() {
	local code volumes
	code=$(cat deploy/lib/run_arguments.py)
	mapfile -t volumes < <(docker volume ls --quiet)
	mapfile -d '' arguments < <(KRONOS_IMAGE=$target compose config --format json |
		docker run --rm --interactive --network none --entrypoint python "$target" -c "$code" "$1" \
			"${volumes[@]+"${volumes[@]}"}")
	[ "${#arguments[@]}" -gt 0 ] || die 3 "image $named cannot run Python to read the settings"
}

# check_service: the settings and the checkpoint, as the image to deploy itself judges them
check_service() {
	local output arguments
	container_of "$service"
	output=$(docker run --rm "${arguments[@]}" kronos-api check </dev/null 2>&1) ||
		die 3 "the service would not start with these settings:$(quoted "$output")"
	say "settings and checkpoint: ${output##*$'\n'}"
}
