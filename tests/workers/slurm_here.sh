#!/bin/sh
# A SLURM of one node on this machine, for tests: munged, slurmctld and slurmd with all of their files in FOLDER.
#   slurm_here.sh start FOLDER [CPUS]   prints the SLURM_CONF to use (CPUS: that the node offers, by default 2)
#   slurm_here.sh stop FOLDER
# Root installs Debian's packages where they are absent. Nothing outside FOLDER is configured.
set -eu
folder=$(mkdir -p "$2" && cd "$2" && pwd)

install_packages() {
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null && return
    [ "$(id -u)" = 0 ] || { echo "SLURM is not installed here: apt-get install slurmctld slurmd slurm-client munge" >&2; exit 1; }
    apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        slurmctld slurmd slurm-client munge >/dev/null
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

configure() {
    cat >"$folder/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MinJobAge=3600
KillWait=5
OverTimeLimit=0
SchedulerParameters=sched_interval=1,bf_interval=1
JobRequeue=1
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$1 Boards=1 SocketsPerBoard=1 CoresPerSocket=$1 ThreadsPerCore=1 State=UNKNOWN
PartitionName=here Nodes=$(hostname -s) Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
    install_packages >&2
    mkdir -p "$folder/state" "$folder/spool"
    chmod 755 "$folder"
    dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 2>/dev/null
    chmod 400 "$folder/munge.key"
    configure "$1"
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" >&2
    export SLURM_CONF="$folder/slurm.conf"
    slurmctld -f "$SLURM_CONF" >&2
    slurmd -f "$SLURM_CONF" >&2
    for _ in $(seq 60); do
        [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && { echo "$SLURM_CONF"; return; }
        sleep 0.5
    done
    echo "SLURM did not come up; see $folder/*.log" >&2
    exit 1
}

stop() {
    for name in slurmd slurmctld munged; do
        [ -f "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    done
}

case $1 in
    start) start "${3:-2}" ;;
    stop) stop ;;
esac
