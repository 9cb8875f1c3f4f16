# Messages of the scripts. Sourced, not run. All go to stderr: stdout belongs to the program.

say() {
    printf '[setup] %s\n' "$*" >&2
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
