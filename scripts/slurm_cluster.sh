#!/bin/bash
# A SLURM cluster of one node, this machine, on loopback, from Debian's packages: apt-get install slurm-wlm munge
#
#     eval "$(scripts/slurm_cluster.sh start)"    # sbatch, squeue and the rest then find it, through SLURM_CONF
#     scripts/slurm_cluster.sh status
#     scripts/slurm_cluster.sh stop
#
# All of it is in one folder, $ATTNLAB_SLURM (default: attnlab-slurm in the folder for temporary files), with keys, ports
# and daemons of its own, so it disturbs no other. It needs neither systemd nor cgroups, and keeps no accounts.
set -euo pipefail

folder=${ATTNLAB_SLURM:-${TMPDIR:-/tmp}/attnlab-slurm}
export SLURM_CONF=$folder/slurm.conf
export PATH=$PATH:/usr/sbin:/sbin

say() { echo "slurm_cluster.sh: $*" >&2; }

alive() { # NAME: whether the daemon with NAME.pid runs
    local pid
    pid=$(cat "$folder/$1.pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null
}

await() { # SECONDS COMMAND...: until it succeeds
    local left=$(($1 * 10))
    shift
    until "$@" >/dev/null 2>&1; do
        ((left-- > 0)) || return 1
        sleep 0.1
    done
}

answers() { # without a controller, sinfo would look for one elsewhere for a minute
    alive slurmctld && [[ $(sinfo --noheader --format=%t 2>/dev/null) =~ ^(idle|mix|alloc)$ ]]
}

empty() { [[ -z $(squeue --noheader 2>/dev/null) ]]; }

daemon() { # COMMAND...: away from this terminal and from whatever files the caller holds open
    (
        for fd in /proc/self/fd/*; do
            fd=${fd##*/}
            ((fd < 3)) || eval "exec $fd>&-" 2>/dev/null || true
        done
        exec setsid "$@" </dev/null >>"$folder/daemons.log" 2>&1
    )
}

configure() {
    local user cores megabytes ports
    user=$(id -un) cores=$(nproc)
    megabytes=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
    read -ra ports < <(python3 -c '
import socket
taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in taken))')
    cat >"$SLURM_CONF" <<CONF
ClusterName=attnlab
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmdPort=${ports[1]}
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=10
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobRequeue=1
ReturnToService=2
KillWait=10
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$megabytes State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
    local program
    for program in sbatch slurmctld slurmd munged python3; do
        command -v "$program" >/dev/null || { say "$program is missing: apt-get install slurm-wlm munge"; exit 1; }
    done
    if ! answers; then
        stop
        mkdir -p "$folder"/{state,spool}
        chmod 755 "$folder"
        configure
        (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
        daemon munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
            --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
        await 10 test -S "$folder/munge.socket" || { say "munged does not start; see $folder/munged.log"; exit 1; }
        daemon slurmctld -c
        daemon slurmd -N localhost
        await 30 answers || { say "SLURM does not answer; see $folder/slurmctld.log and slurmd.log"; stop; exit 1; }
    fi
    say "one node with $(sinfo --noheader --format=%c) cores, in $folder"
    echo "export SLURM_CONF=$(printf %q "$SLURM_CONF")"
}

stop() {
    local name
    if alive slurmctld; then
        scancel --user="$(id -un)" 2>/dev/null || true
        await 20 empty || true
    fi
    for name in slurmd slurmctld munged; do
        alive "$name" || continue
        kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
        await 10 eval "! alive $name" || kill -9 "$(cat "$folder/$name.pid")" 2>/dev/null || true
        rm -f "$folder/$name.pid"
    done
}

case ${1:-} in
start) start ;;
stop) stop ;;
status)
    answers || { say "no cluster in $folder"; exit 1; }
    sinfo
    squeue
    ;;
*)
    say "start, stop or status?"
    exit 2
    ;;
esac
