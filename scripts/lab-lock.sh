# To be sourced: has one script or test at a time use a lab.

# lock_lab NAME: waits until nobody else uses one. Descriptor 9 holds the lock; what runs in the lab must not have it
# (`9>&-`), or it would hold the lock when the script is killed.
lock_lab() {
    exec 9>>/tmp/tidegate-lab.lock
    flock --nonblock 9 || {
        echo "$1: waiting for the tests and benchmarks that use the lab" >&2
        flock 9
    }
}
