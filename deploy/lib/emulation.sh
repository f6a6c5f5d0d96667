# shellcheck shell=bash
# Emulation of arm64, for the tests that build for it: QEMU in the kernel's binfmt_misc, and a program to run.

binfmt=/proc/sys/fs/binfmt_misc

# The busybox of Debian 13 for arm64, which needs no library.
emulation_busybox() {
    printf '%s/usr/bin/busybox\n' "$(debian13_home arm64)"
}

emulation_install() {
    debian13_architecture=arm64 debian13_unpack arm64 download busybox-static
    emulation_register
    "$(emulation_busybox)" true || fail "this machine does not execute programs for arm64: see $binfmt/qemu-aarch64"
}

# The packages of binfmt-support and systemd do this at boot; a machine without either is not changed by an installation.
emulation_register() {
    [[ $(uname -m) != aarch64 ]] || return 0
    [[ -e $binfmt/register ]] || mount -t binfmt_misc binfmt_misc "$binfmt" ||
        fail "binfmt_misc cannot be mounted, which programs for other platforms need: run as root, with CAP_SYS_ADMIN, on a kernel that has it"
    [[ ! -e $binfmt/qemu-aarch64 ]] || return 0
    cat /usr/lib/binfmt.d/qemu-aarch64.conf >"$binfmt/register" || [[ -e $binfmt/qemu-aarch64 ]] ||
        fail "QEMU for arm64 cannot be registered in $binfmt"
}
