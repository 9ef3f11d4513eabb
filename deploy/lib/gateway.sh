# shellcheck shell=bash
# The gateway: its configuration, certificate and key are judged as they are on this host, and what
# runs has read the same files.

# check_gateway STATUS: as nginx judges them in a container that mounts what is there now; leaves
# the digest of all that it reads in `gateway_files`. Exits with STATUS and nginx's reason.
check_gateway() {
	local output arguments nginx
	[[ $services == *" nginx "* ]] || return 0
	check_links "$1"
	container_of nginx
	nginx=${arguments[-1]}
	if [ -z "$(id_of "$nginx")" ]; then
		if [ -n "$dry_run" ]; then
			warn "the gateway is not checked: there is no image $nginx here, and a dry run pulls nothing"
			return
		fi
		docker pull "$nginx" || die 4 "there is no image $nginx, here or elsewhere"
	fi
	output=$(docker run --rm "${arguments[@]}" nginx -t </dev/null 2>&1) ||
		die "$1" "nginx does not accept its configuration:$(quoted "$output")"
	gateway_files=$(docker run --rm "${arguments[@]}" sh -c "$digest_of_files" </dev/null) ||
		die "$1" "the files of the gateway cannot be read"
	# nginx takes a key of another kind than the certificate's, and then refuses every caller.
	output=$(docker run --rm "${arguments[@]::${#arguments[@]}-1}" --entrypoint python "$target" \
		-c "$check_pair" </dev/null 2>&1) ||
		die "$1" "privkey.pem is not the key of fullchain.pem: ${output##*$'\n'}"
	say "configuration and certificate of the gateway"
}

readonly check_pair='
import os, ssl
certificate, key = "/etc/nginx/tls/fullchain.pem", "/etc/nginx/tls/privkey.pem"
if os.path.exists(certificate) and os.path.exists(key):
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
'

# By content: certificates may be copied with their old times.
readonly digest_of_files='find -L /etc/nginx -type f -exec sha256sum {} + | sort | sha256sum'

# check_links STATUS: certificate and key are seen in the container, which mounts their folder alone
check_links() {
	local folder file place
	folder=$(value KRONOS_TLS_DIR)
	folder=$(readlink --canonicalize -- "${folder:-deploy/nginx/tls}") || return 0
	for file in "$folder"/fullchain.pem "$folder"/privkey.pem; do
		[ -L "$file" ] || continue
		place=$(readlink --canonicalize -- "$file") || place=
		[[ $place == "$folder"/* ]] ||
			die "$1" "$file is a link to ${place:-nothing}, out of KRONOS_TLS_DIR, where the gateway" \
				"cannot follow it: copy the files (docs/DEPLOYMENT.md, TLS)"
	done
}

# start_gateway: nginx runs, and has read the files that are there now
start_gateway() {
	local id earlier output
	[[ $services == *" nginx "* ]] || return 0
	check_gateway 7
	earlier=$(compose ps --quiet nginx)
	output=$(compose up --detach --no-deps --wait nginx 2>&1) ||
		die 7 "the service runs, its gateway does not (docker compose logs nginx):$(quoted "$output")"
	id=$(compose ps --quiet nginx)
	# It is left alone if nothing has changed: a reload closes the connections that callers keep,
	# and those that use one in that instant lose a request.
	if [ "$id" = "$earlier" ] &&
		[ "$(docker exec "$id" cat /tmp/has-read 2>/dev/null)" != "$gateway_files" ]; then
		if [ "$(docker exec "$id" sh -c "$digest_of_files" 2>/dev/null)" = "$gateway_files" ]; then
			reload "$id"
		else
			# A mount stays with the file or folder it was made of, whatever has its name now.
			warn "files of the gateway were replaced: it restarts, and refuses calls for a moment"
			docker restart "$id" >/dev/null
			become_healthy "$id" || {
				last_words "$id" || true
				die 7 "the service runs, but its gateway $problem"
			}
		fi
	fi
	docker exec "$id" sh -c 'printf "%s\n" "$1" >/tmp/has-read' sh "$gateway_files" ||
		warn "the gateway will read its configuration again at the next deployment"
	say "the gateway is healthy"
}

# reload ID: nginx reads its files again. It says so to its log alone if it cannot, and goes on with
# what it had: new workers are the sign that it could.
reload() {
	local since workers output deadline=$((SECONDS + 30))
	since=$(docker exec "$1" date +%s)
	workers=$(workers_of "$1")
	docker exec "$1" nginx -s reload 2>/dev/null || die 7 "nginx could not be told to reload"
	until [ -n "$(comm -13 <(echo "$workers") <(workers_of "$1"))" ]; do
		if output=$(docker logs --since "$since" "$1" 2>&1 | grep -F '[emerg]'); then
			die 7 "nginx did not take its new files, and runs with the old ones:$(quoted "$output")"
		fi
		[ "$SECONDS" -lt "$deadline" ] || die 7 "nginx did not take its new files within 30 s"
		sleep 0.5
	done
	say "the gateway has read its configuration and certificate again"
}

# workers_of ID: the process ids of its workers
workers_of() { docker top "$1" -o pid,args | awk '/worker process/ {print $1}' | sort; }
