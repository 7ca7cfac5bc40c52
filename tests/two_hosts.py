"""Two hosts on one machine: `node1` and `node2`, each with its own network, processes, names and /dev/shm.

Made of Linux namespaces, held by one process a host and joined by a veth pair. Nothing has a name outside, and all goes
with the two processes, which end when the one that made them does. Needs root, `unshare` and `nsenter` (util-linux).
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pyroute2  # noqa: F401  the tests require it: where it is missing, that is a failure and no reason to skip

ADDRESSES = {"node1": "10.231.7.1", "node2": "10.231.7.2"}
INTERFACE = "link0"

_HOLD = "read -r _"  # the host's first process: it ends, and with it all others, when its stdin is closed
_UNSHARE = ["unshare", "--net", "--uts", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
_SET_UP = """
    set -e
    hostname {name}
    mount -t tmpfs tmpfs /dev/shm
    mount --bind {hosts} /etc/hosts
    echo ready
    {hold}
"""
_LINK = """
    import sys
    from pyroute2 import IPRoute

    name, other, action, addresses = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    with IPRoute() as ip:
        if action == "make":
            ip.link("add", ifname=name, kind="veth", peer={"ifname": name, "net_ns_pid": other})
        [lo], [link] = ip.link_lookup(ifname="lo"), ip.link_lookup(ifname=name)
        for address in addresses:
            ip.addr("add", index=link, address=address, prefixlen=24)
        ip.link("set", index=lo, state="up")
        ip.link("set", index=link, state="down" if action == "down" else "up")
"""
# What sshd gives a command: not the caller's environment.
_SSH = """
    #!{python}
    import os, sys
    nodes = {nodes}
    words = sys.argv[1:]
    while words[0].startswith("-"):
        words = words[2 if words[0] in ("-o", "-p", "-l") else 1:]
    environment = {{"HOME": {home!r}, "USER": "root", "PATH": "/usr/local/bin:/usr/bin:/bin"}}
    host, command = words[0], " ".join(words[1:])
    enter = ["nsenter", "-t", str(nodes[host]), "-n", "-u", "-m", "-i", "-p", "sh", "-c", command]
    os.execvpe(enter[0], enter, environment)
"""
# pdsh -S -f 1024 -w node1,node2 COMMAND: all at once, lines marked by their host, the worst status.
_PDSH = """
    #!{python}
    import subprocess, sys
    from threading import Thread
    words = sys.argv[1:]
    hosts, command = words[words.index("-w") + 1].split(","), words[words.index("-w") + 2:]
    if command[0].startswith("pkill"):
        sys.exit(0)  # what deepspeed sends on Ctrl-C would end other programs of this machine too
    def run(number, host):
        ours = " ".join(command).replace("%n", str(number)).replace("%h", host)
        started = subprocess.Popen(["ssh", host, ours], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in started.stdout:
            print(f"{{host}}: {{line}}", end="", flush=True)
        statuses[number] = started.wait()
    statuses = [None] * len(hosts)
    threads = [Thread(target=run, args=pair) for pair in enumerate(hosts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(max(statuses))
"""


class NotPermitted(RuntimeError):
    """This machine can't make two hosts; the message says why."""


class TwoHosts:
    """`node1` and `node2`, a link between them, and `deepspeed --hostfile` for both; a context manager.

    Attributes:
        folder: scratch space that both see, as they see every other folder.
        pids: of the process that holds each host.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.pids: dict[str, int] = {}
        self._holders: list[subprocess.Popen] = []

    def __enter__(self) -> TwoHosts:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for holder in self._holders:
            holder.kill()  # of unshare, whose --kill-child ends the host's first process and so all of them
            holder.communicate()

    def _start(self) -> None:
        missing = [tool for tool in ("unshare", "nsenter") if not shutil.which(tool)]
        if missing or sys.platform != "linux" or os.geteuid():
            why = f"no {missing[0]} (util-linux)" if missing else "not Linux, or not root"
            raise NotPermitted(f"needs network namespaces: {why}")
        hosts = self.folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{a} {name}\n" for name, a in ADDRESSES.items()))
        for name in ADDRESSES:
            self.pids[name] = self._hold(name, hosts)
        node1, node2 = ADDRESSES
        self._link(node1, "make", f"{ADDRESSES[node1]}")
        self._link(node2, "up", f"{ADDRESSES[node2]}")
        self._write_commands()

    def _hold(self, name: str, hosts: Path) -> int:
        script = textwrap.dedent(_SET_UP).format(name=name, hosts=hosts, hold=_HOLD)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        holder = subprocess.Popen([*_UNSHARE, "bash", "-c", script], **pipes)
        self._holders.append(holder)
        if holder.stdout.readline() != "ready\n":
            raise NotPermitted(f"needs network namespaces: {holder.communicate()[1].strip()}")
        return int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text())

    def _link(self, name: str, action: str, *addresses: str) -> None:
        other = next(pid for host, pid in self.pids.items() if host != name)
        enter = ["nsenter", "-t", str(self.pids[name]), "-n"]
        script = [sys.executable, "-c", textwrap.dedent(_LINK), INTERFACE, str(other), action, *addresses]
        done = subprocess.run([*enter, *script], capture_output=True, text=True)
        if done.returncode:
            raise NotPermitted(f"needs a veth pair: {done.stderr.strip().splitlines()[-1]}")

    def _write_commands(self) -> None:
        """Stand-ins for ssh and pdsh, which `deepspeed` starts by name; the hostfile."""
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        for command, text in (("ssh", _SSH), ("pdsh", _PDSH)):
            script = textwrap.dedent(text).strip().format(python=sys.executable, nodes=self.pids, home=str(Path.home()))
            path = self.bin / command
            path.write_text(script + "\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.hostfile = self.folder / "hostfile"
        self.hostfile.write_text("".join(f"{name} slots=1\n" for name in ADDRESSES))

    def cut_link(self) -> None:
        """The cable is pulled: packets of both hosts go nowhere from now on."""
        self._link("node1", "down")

    def mend_link(self) -> None:
        self._link("node1", "up")

    def processes(self) -> list[int]:
        """What runs on the two hosts, without their first processes."""
        held = {os.readlink(f"/proc/{pid}/ns/pid"): pid for pid in self.pids.values()}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # ended meanwhile
                if int(folder.name) not in held.values() and os.readlink(folder / "ns/pid") in held:
                    found.append(int(folder.name))
        return found

    def bytes_sent(self, name: str) -> int:
        """How much a host has sent over the link."""
        table = Path(f"/proc/{self.pids[name]}/net/dev").read_text()
        return int(re.search(rf"{INTERFACE}:(.*)", table)[1].split()[8])

    def deepspeed(self, arguments: list[str]) -> subprocess.Popen:
        """Start `deepspeed --hostfile ...` outside the two hosts, in `folder`; stdout and stderr in one pipe."""
        path = f"{self.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["deepspeed", "--hostfile", str(self.hostfile), *arguments], env={**os.environ, "PATH": path},
            cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
