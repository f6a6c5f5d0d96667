# Run as root in the network of the engine's machine, with the programs of that machine.
#
# Rejects what containers on the bridges of steps send to the machine itself, to ports that it publishes for other
# containers, and to the given addresses. What answers others passes. A second run changes nothing.
set -eu

bridges='gtrs+'

# guard COMMAND ADDRESS…
guard() {
    tables=$1
    shift
    {
        echo '*filter'
        # In one transaction, so that there is no moment without a rule.
        for chain in GANTRY-STEPS GANTRY-MACHINE; do
            echo ":$chain - [0:0]"
            echo "-A $chain -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
        done
        echo '-A GANTRY-STEPS -m conntrack --ctstate DNAT -j REJECT'
        for address; do
            echo "-A GANTRY-STEPS -d $address -j REJECT"
        done
        echo '-A GANTRY-MACHINE -j REJECT'
        echo COMMIT
    } | "$tables-restore" -w --noflush
    # The engine lets others stand before its own rules only in this chain.
    forward=DOCKER-USER
    "$tables" -w -n -L "$forward" >/dev/null 2>&1 || forward=FORWARD
    first "$tables" "$forward" GANTRY-STEPS
    first "$tables" INPUT GANTRY-MACHINE
}

# first COMMAND CHAIN TARGET: the rule is there, and stands first when it is new.
first() {
    "$1" -w -C "$2" -i "$bridges" -j "$3" 2>/dev/null || "$1" -w -I "$2" -i "$bridges" -j "$3"
}

# The addresses at which clouds tell a machine its credentials.
guard iptables 169.254.0.0/16 168.63.129.16 100.100.100.200
if [ -e /proc/net/if_inet6 ]; then
    guard ip6tables fd00:ec2::254 fe80::/10
fi
