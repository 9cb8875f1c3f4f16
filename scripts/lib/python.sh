# Finding Python 3.11. Sourced, not run; needs say.sh.

# Print the path of a Python 3.11 that can make virtual environments, or fail with one line.
find_python() {
    local name path version found=()
    for name in python3.11 python3 python; do
        # The path of the real interpreter: what the name leads to may be a version manager's shim.
        path=$("$name" -c 'import sys; print(sys.executable)' 2>/dev/null) || continue
        version=$("$path" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        if [[ $version == 3.11 ]]; then
            "$path" -c 'import ensurepip, venv' 2>/dev/null ||
                fail "$path cannot make virtual environments; on Debian: apt-get install python3.11-venv"
            printf '%s\n' "$path"
            return
        fi
        found+=("$name $version")
    done
    local others=${found[*]:+; here are only: ${found[*]}}
    fail "Python 3.11 is needed and is not on PATH${others}; install python3.11"
}
