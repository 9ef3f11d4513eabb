# shellcheck shell=bash
# The gateway: its configuration, certificate and key are checked as they are on this host, and the
# running nginx is made to read the same files.

# check_gateway STATUS: run `gateway check` in a container with the present files; sets `gateway_files` to
# the digest of all that it reads. Exits with STATUS and nginx's reason if it fails.
check_gateway() {
	local output arguments nginx
	[[ $services == *" nginx "* ]] || return 0
	check_links "$1"
	container_of nginx
	nginx=${arguments[-1]}
	if [ -z "$(id_of "$nginx")" ]; then
		if [ -n "$dry_run" ]; then
			warn "gateway not checked: image $nginx is not on this host, and a dry run pulls nothing; docker pull $nginx"
			return
		fi
		docker pull "$nginx" || die 4 "image $nginx not found, neither on this host nor in its registry"
	fi
	output=$(docker run --rm "${arguments[@]}" /etc/nginx/gateway check </dev/null 2>&1) ||
		die "$1" "nginx rejects its configuration:$(quoted "$output")"
	gateway_files=$(docker run --rm "${arguments[@]}" sh -c "$digest_of_files" </dev/null) ||
		die "$1" "cannot read the files of the gateway in KRONOS_TLS_DIR and deploy/nginx"
	# nginx accepts a key of another type than the certificate's, and then refuses every connection.
	output=$(docker run --rm "${arguments[@]::${#arguments[@]}-1}" --entrypoint python "$target" \
		-c "$check_pair" </dev/null 2>&1) ||
		die "$1" "privkey.pem is not the key of fullchain.pem: ${output##*$'\n'}"
	say "configuration and certificate of the gateway"
}

readonly check_pair='
import os, ssl
name = os.environ.get("KRONOS_TLS_NAME")
folder = f"/etc/nginx/tls/live/{name}" if name else "/etc/nginx/tls"
certificate, key = f"{folder}/fullchain.pem", f"{folder}/privkey.pem"
if os.path.exists(certificate) and os.path.exists(key):
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
'

# By content: certificates may be copied with their old times.
readonly digest_of_files='find -L /etc/nginx -type f -exec sha256sum {} + 2>/dev/null | sort | sha256sum'

# check_links STATUS: certificate and key must be inside the folder that the container mounts
check_links() {
	local folder live file place
	folder=$(value KRONOS_TLS_DIR)
	folder=$(readlink --canonicalize -- "${folder:-deploy/nginx/tls}") || return 0
	live=$(value KRONOS_TLS_NAME)
	live=$folder${live:+/live/$live}
	for file in "$live"/fullchain.pem "$live"/privkey.pem; do
		[ -L "$file" ] || continue
		place=$(readlink --canonicalize -- "$file") || place=
		[[ $place == "$folder"/* ]] ||
			die "$1" "$file is a link to ${place:-nothing}, out of KRONOS_TLS_DIR, where the gateway" \
				"cannot follow it: set KRONOS_TLS_NAME, or copy the files (docs/deployment.md, TLS)"
	done
}

# start_gateway: start nginx, or have it read the present files
start_gateway() {
	local id earlier output
	[[ $services == *" nginx "* ]] || return 0
	check_gateway 7
	earlier=$(compose ps --quiet nginx)
	output=$(compose up --detach --no-deps --wait nginx 2>&1) ||
		die 7 "the service is running, its gateway is not (docker compose logs nginx):$(quoted "$output")"
	id=$(compose ps --quiet nginx)
	# No reload if nothing has changed: it closes kept connections, and a caller that sends on one
	# at that moment loses a request.
	if [ "$id" = "$earlier" ] &&
		[ "$(docker exec "$id" cat /tmp/has-read 2>/dev/null)" != "$gateway_files" ]; then
		if [ "$(docker exec "$id" sh -c "$digest_of_files" 2>/dev/null)" = "$gateway_files" ]; then
			reload "$id"
		else
			# A mount stays with its original inode; a file or folder of the same name is not seen.
			warn "files of the gateway were replaced: it restarts and refuses connections for a moment"
			docker restart "$id" >/dev/null
			become_healthy "$id" || {
				last_words "$id" || true
				die 7 "the service is running, but its gateway $problem"
			}
		fi
	fi
	docker exec "$id" sh -c 'printf "%s\n" "$1" >/tmp/has-read' sh "$gateway_files" ||
		warn "could not note that the gateway is up to date; the next deployment reloads it"
	say "the gateway is healthy"
}

# reload ID: have nginx read its files again. On failure nginx only logs the reason and keeps the old
# configuration; new worker processes show that it succeeded.
reload() {
	local since workers output deadline=$((SECONDS + 30))
	since=$(docker exec "$1" date +%s)
	workers=$(workers_of "$1")
	docker exec "$1" /etc/nginx/settings /tmp/gateway || die 7 "the gateway rejects its settings"
	docker exec "$1" nginx -s reload 2>/dev/null || die 7 "nginx -s reload failed in the gateway's container"
	until [ -n "$(comm -13 <(echo "$workers") <(workers_of "$1"))" ]; do
		if output=$(docker logs --since "$since" "$1" 2>&1 | grep -F '[emerg]'); then
			die 7 "nginx rejected its new files and keeps the old ones:$(quoted "$output")"
		fi
		[ "$SECONDS" -lt "$deadline" ] || die 7 "nginx did not load its new files within 30 s"
		sleep 0.5
	done
	say "the gateway has read its configuration and certificate again"
}

# workers_of ID: the process ids of its workers
workers_of() { docker top "$1" -o pid,args | awk '/worker process/ {print $1}' | sort; }
