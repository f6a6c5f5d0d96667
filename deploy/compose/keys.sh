#!/bin/sh
# Makes the keys and passwords of an installation once, each where only those can read it who need it.
# Run by the service `keys` of docker-compose.yml; a second run changes nothing.
set -eu
umask 077

# what only root and the user of gantry's image may read
give() {
    chown -R 10001:10001 "$1"
}

password() {
    [ -s "$1" ] || tr -dc 'a-zA-Z0-9' </dev/urandom | head -c 40 >"$1"
}

[ -s /keys/service/secret.key ] || gantry secret key --to /keys/service/secret.key
pool=${GANTRY_WORKER_POOL:-linux-amd64}
[ -s "/keys/pool/$pool.key" ] ||
    gantry secret pool-key "$pool" --set secrets.key_file=/keys/service/secret.key --to "/keys/pool/$pool.key"

password /keys/passwords/redis
password /keys/passwords/rabbitmq
password /keys/worker-passwords/redis
cp /keys/passwords/rabbitmq /keys/worker-passwords/rabbitmq

cat >/keys/redis/redis.conf <<CONF
# Each change is on the disk before gantry hears that it was made, and none is ever evicted.
appendonly yes
appendfsync always
maxmemory-policy noeviction
aclfile /conf/users.acl
CONF
# The workers' user may touch what workers need, and of secrets only its pool's: docs/redis-acl.md.
sed -e "s/ >CHANGE-ME / >$(cat /keys/passwords/redis) /" \
    -e "s/ >CHANGE-ME-TOO / >$(cat /keys/worker-passwords/redis) /" \
    -e "s/linux-amd64/$pool/g" /users.acl.example >/keys/redis/users.acl

cat >/keys/rabbitmq/rabbitmq.conf <<CONF
default_user = gantry
default_pass = $(cat /keys/passwords/rabbitmq)
default_vhost = gantry
CONF

# These two images change to users of their own before they read.
chmod 755 /keys/redis /keys/rabbitmq
chmod 644 /keys/redis/redis.conf /keys/redis/users.acl /keys/rabbitmq/rabbitmq.conf
give /keys/service
give /keys/pool
give /keys/passwords
give /keys/worker-passwords
give /objects
