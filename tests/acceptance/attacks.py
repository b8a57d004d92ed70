"""The attacks of test_attacks.py, by name: requests, and the code that refuses each, or scripts for a confined run.

@ROOT@ stands for the folder of the service, @OUTSIDE@ for one that is no business of anybody's, @TASK@ for another
user's task, @UP@ for a process of the service and @PORT@ for its port.
"""

from __future__ import annotations

from typing import Any


def adhoc(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "ansiblecommand", {"host_pattern": "dev1", "module": "ping", "inventory": "@ROOT@/inventories/dev", **fields}


def play(**fields: Any) -> tuple[str, dict[str, Any]]:
    given = {"playbook_dir": ".", "playbook": "allowed.yml", "inventory": "@ROOT@/inventories/dev"}
    return "ansibleplaybook", {**given, **fields}


def variables(*parts: Any) -> dict[str, tuple[tuple[str, dict[str, Any]], str]]:
    return {f"by extra_vars {part}": (adhoc(extra_vars=part), "connection_variable_forbidden") for part in parts}


REFUSED = {
    "another inventory": (adhoc(inventory="@ROOT@/inventories/prod"), "inventory_forbidden"),
    "another inventory by dots": (adhoc(inventory="@ROOT@/inventories/dev/../prod"), "inventory_forbidden"),
    "another inventory in a list": (
        adhoc(inventory=["@ROOT@/inventories/dev", "@ROOT@/inventories/prod/hosts"]),
        "inventory_forbidden",
    ),
    "the folder of all inventories": (adhoc(inventory="@ROOT@/inventories"), "inventory_forbidden"),
    "an inventory among the playbooks": (adhoc(inventory="@ROOT@/playbooks/site/stage"), "inventory_forbidden"),
    "no inventory": (adhoc(inventory=None), "inventory_forbidden"),
    "rbac.json as inventory": (adhoc(inventory="@ROOT@/rbac.json"), "inventory_forbidden"),
    "standard input as inventory": (adhoc(inventory="/dev/stdin"), "inventory_forbidden"),
    "a process's file as inventory": (adhoc(inventory="/proc/self/environ"), "inventory_forbidden"),
    "inline hosts": (adhoc(inventory="prod1,"), "host_list_forbidden"),
    "inline localhost": (adhoc(inventory="localhost,", host_pattern="all"), "host_list_forbidden"),
    "the control machine": (adhoc(host_pattern="localhost"), "localhost_forbidden"),
    "the control machine by number": (adhoc(host_pattern="127.0.0.1"), "localhost_forbidden"),
    "the control machine by IPv6": (adhoc(host_pattern="::1"), "localhost_forbidden"),
    "the control machine among hosts": (adhoc(host_pattern="dev1,localhost"), "localhost_forbidden"),
    "the control machine by limit": (adhoc(host_pattern="all", limit="localhost"), "localhost_forbidden"),
    **variables(
        {"ansible_connection": "local"},
        {"ansible_host": "127.0.0.1"},
        {"ansible_ssh_common_args": "-o ProxyCommand='touch @OUTSIDE@/pwned'"},
        {"ansible_python_interpreter": "/tmp/pwn"},
        {"ansible_become_exe": "/tmp/pwn"},
        {"_ansible_tmpdir": "/etc"},
        {"inventory_hostname": "prod1"},
        "ansible_host=127.0.0.1",
        "a=1 ansible_connection=local",
        '{"ansible_host": "127.0.0.1"}',
        "{ansible_ssh_executable: /tmp/pwn}",
        "{<<: {ansible_host: 127.0.0.1}}",
        [{"a": 1}, "ansible_shell_executable=/tmp/pwn"],
    ),
    "variables from a file": (
        adhoc(extra_vars="@@ROOT@/inventories/prod/group_vars/all.yml"),
        "variables_file_forbidden",
    ),
    "a template as pattern": (adhoc(host_pattern="{{ lookup('pipe', 'id') }}"), "template_forbidden"),
    "a template as module": (adhoc(module="{{ lookup('pipe', 'id') }}"), "template_forbidden"),
    "a template as limit": (adhoc(limit="{% set x = lookup('pipe', 'id') %}"), "template_forbidden"),
    "a template as become_user": (adhoc(become_user="{{ lookup('pipe', 'id') }}"), "template_forbidden"),
    "a template as tag": (play(tags="{{ lookup('pipe', 'id') }}"), "template_forbidden"),
    "a limit from a file": (adhoc(limit="@@ROOT@/rbac.json"), "limit_file_forbidden"),
    "a local connection": (adhoc(connection="local"), "field_forbidden"),
    "options for ssh": (adhoc(ssh_common_args="-o ProxyCommand=id"), "field_forbidden"),
    "more options for ssh": (adhoc(ssh_extra_args="-o LocalCommand=id"), "field_forbidden"),
    "options for sftp": (adhoc(sftp_extra_args="-S id"), "field_forbidden"),
    "options for scp": (adhoc(scp_extra_args="-S id"), "field_forbidden"),
    "a password from a file": (adhoc(connection_password_file="@ROOT@/rbac.json"), "field_forbidden"),
    "a command as become_user": (adhoc(become=True, become_user="root; id >&2; exit 3 #"), "become_forbidden"),
    "code behind a become password": (adhoc(become=True, become_password="x\nimport os"), "invalid_field"),
    "a become password from a program": (adhoc(become_password_file="/usr/bin/id"), "field_forbidden"),
    "a folder to write results to": (adhoc(tree="@OUTSIDE@"), "field_forbidden"),
    "a strategy": (adhoc(strategy="mitogen_linear"), "field_forbidden"),
    "another's private key": (
        adhoc(private_key_file="@ROOT@/.flansible/homes/ops/.ssh/id_ed25519"),
        "private_key_forbidden",
    ),
    "the host's private key": (adhoc(private_key_file="/etc/ssh/ssh_host_ed25519_key"), "private_key_forbidden"),
    "a vault password from a program": (adhoc(vault_file="/usr/bin/id"), "vault_file_forbidden"),
    "a vault password from the key": (adhoc(vault_password_file="@ROOT@/key"), "vault_file_forbidden"),
    "a vault id from a file": (adhoc(vault_id="x@@ROOT@/key"), "vault_file_forbidden"),
    "modules from elsewhere": (adhoc(module_path="@OUTSIDE@"), "module_path_forbidden"),
    "modules from elsewhere by dots": (adhoc(module_path="../@OUTSIDE@"), "module_path_forbidden"),
    "a library to load first": (adhoc(environment={"LD_PRELOAD": "/tmp/pwn.so"}), "environment_forbidden"),
    "a folder of Python's": (adhoc(environment={"PYTHONPATH": "/tmp"}), "environment_forbidden"),
    "a configuration of Ansible's": (adhoc(environment={"ANSIBLE_CONFIG": "@OUTSIDE@"}), "environment_forbidden"),
    "an option of ssh by variable": (
        adhoc(environment={"ANSIBLE_SSH_ARGS": "-oProxyCommand=id"}),
        "environment_forbidden",
    ),
    "a playbook outside": (play(playbook="@OUTSIDE@/evil.yml"), "playbook_forbidden"),
    "a playbook outside by dots": (play(playbook="../outside/evil.yml"), "playbook_forbidden"),
    "a playbook through a link": (play(playbook="way-out/evil.yml"), "playbook_forbidden"),
    "a folder outside": (play(playbook_dir="@OUTSIDE@", playbook="evil.yml"), "playbook_forbidden"),
    "a folder through a link": (play(playbook_dir="way-out", playbook="evil.yml"), "playbook_forbidden"),
    "an ad-hoc folder outside": (adhoc(chdir="@OUTSIDE@"), "playbook_forbidden"),
    "an ad-hoc playbook folder outside": (adhoc(playbook_dir="/etc"), "playbook_forbidden"),
    "more forks than given": (adhoc(forks=5000), "limit_exceeded"),
    "git outside": (("git", {"playbook_dir": "@OUTSIDE@"}), "playbook_forbidden"),
    "git from a folder": (("git", {"playbook_dir": ".", "remote_name": "site/stage"}), "git_forbidden"),
    "an option for git": (("git", {"playbook_dir": ".", "remote_name": "--upload-pack=id"}), "invalid_request"),
    "an option as branch": (("git", {"playbook_dir": ".", "branch_name": "--exec=id"}), "invalid_request"),
    "a field that does not exist": (adhoc(isolation="none"), "invalid_field"),
    "a user as a field": (adhoc(user="admin"), "invalid_field"),
    "rights as a field": (adhoc(confinement=None), "invalid_field"),
}


NARROW = {
    "a host that is not given": (adhoc(host_pattern="dev2"), "host_forbidden"),
    "a host that is not given, among others": (adhoc(host_pattern="dev1:dev2"), "host_forbidden"),
    "a host that is not given, by limit": (adhoc(host_pattern="all", limit="dev2"), "host_forbidden"),
    "a group that is not given": (adhoc(host_pattern="web"), "host_forbidden"),
    "a module that is denied": (adhoc(module="shell", module_args="id"), "module_forbidden"),
    "by its full name": (adhoc(module="ansible.builtin.shell", module_args="id"), "module_forbidden"),
    "by its other full name": (adhoc(module="ansible.legacy.command", module_args="id"), "module_forbidden"),
    "a playbook that is not given": (play(playbook="forbidden.yml"), "playbook_forbidden"),
    "by another way to it": (play(playbook="site/../forbidden.yml"), "playbook_forbidden"),
    "one of two": (play(playbook=["allowed.yml", "forbidden.yml"]), "playbook_forbidden"),
    "become": (adhoc(become=True), "become_forbidden"),
    "become by user": (adhoc(become_user="root"), "become_forbidden"),
    "git": (("git", {"playbook_dir": "."}), "git_forbidden"),
}


# What is said is data, whatever module looks at it.

DATA = {
    "a message": ("debug", "msg={{ lookup('pipe', 'touch @OUTSIDE@/pwned') }}"),
    "an expression": ("debug", {"var": "lookup('pipe', 'touch @OUTSIDE@/pwned')"}),
    "a condition": ("assert", {"that": ["lookup('pipe', 'touch @OUTSIDE@/pwned')"]}),
    "a fact": ("set_fact", {"x": "{{ lookup('pipe', 'touch @OUTSIDE@/pwned') }}"}),
    "a variable's name": ("debug", {"msg": {"{{ lookup('pipe', 'touch @OUTSIDE@/pwned') }}": 1}}),
}


# What only the kernel can stop.

PYTHON_REDIS = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('@ROOT@/.flansible/redis.sock'); s.sendall(b'KEYS *\\r\\n'); print(s.recv(9999))"
CONFINED = {
    # To read what is not theirs.
    "prod's inventory": "cat @ROOT@/inventories/prod/hosts",
    "prod's variables": "cat @ROOT@/inventories/prod/group_vars/all.yml",
    "all inventories": "cat @ROOT@/inventories/*/* @ROOT@/inventories/*/*/*",
    "an inventory among the playbooks": "cat @ROOT@/playbooks/site/stage/hosts",
    "a hidden inventory among the playbooks": "cat @ROOT@/playbooks/inventories/other",
    "through a link in the playbooks": "cat @ROOT@/playbooks/way-out/secret.txt",
    "a link of one's own": "ln -sfn @ROOT@/inventories/prod ~/link; cat ~/link/hosts; rm ~/link",
    "a hard link": "ln @ROOT@/inventories/prod/hosts ~/hard; cat ~/hard",
    "rbac.json": "cat @ROOT@/rbac.json",
    "config.ini": "cat @ROOT@/config.ini; test ! -e @ROOT@/config.ini || echo pwned",
    "the key": "cat @ROOT@/key",
    "the data folder": "cat -r @ROOT@/.flansible/*; find @ROOT@/.flansible -type f -exec cat {} +",
    "another's ssh key": "cat @ROOT@/.flansible/homes/*/.ssh/*",
    "a file outside": "cat @OUTSIDE@/secret.txt",
    "everything": "grep -rIsoE 'marker-[a-z-]*[0-9a-f]{16}' / --exclude-dir=proc --exclude-dir=usr",
    "everything that is open": "for one in /proc/[0-9]*/fd/*; do timeout 0.1 head -c 4096 $one; done </dev/null",
    "what lies above what is open": "for one in /proc/[0-9]*/fd/* /proc/[0-9]*/cwd /proc/[0-9]*/root; do cat $one/../rbac.json $one@ROOT@/rbac.json; done",
    "memory and maps": "cat /proc/[0-9]*/maps | grep -c flansible-web",
    "environments": "cat /proc/[0-9]*/environ | tr '\\0' '\\n'",
    "the own environment": "env",
    "command lines": "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'",
    "the shadow file": "cat /etc/shadow && echo pwned",
    "the host's ssh keys": "cat /etc/ssh/ssh_host_* && echo pwned",
    "the host's Ansible": "ls /etc/ansible && echo pwned",
    "the service's home": "ls -a ~root/.ssh /root/.ssh /root/.bash_history && echo pwned",
    # Redis, and others' processes.
    "Redis by its socket": "redis-cli -s @ROOT@/.flansible/redis.sock KEYS '*'",
    "Redis by Python": f'python3 -c "{PYTHON_REDIS}"',
    "a process of the service": "kill -9 @UP@; kill -0 @UP@ && echo pwned",
    "every process": "kill -0 -1; ps -eo args || cat /proc/[0-9]*/comm",
    "to trace": "cat /proc/@UP@/mem",
    "shared memory": "ipcs -m; ls /dev/shm | grep -v -e ansible -e pwned | grep . && echo pwned",
    # Out of the sandbox.
    "the disk": "mknod /tmp/disk b 254 0 && dd if=/tmp/disk bs=1M count=1 | wc -c && echo pwned",
    "memory": "head -c 10 /dev/mem /proc/kcore && echo pwned",
    "new namespaces": "unshare -Urm sh -c 'mount -t tmpfs none /mnt' && echo pwned",
    "namespaces of others": "nsenter -t 1 -m -p sh -c 'cat @ROOT@/rbac.json'",
    "mounts": "mount -t proc proc /tmp && echo pwned; mount -o remount,rw / && echo pwned; umount /proc/sys && echo pwned",
    "another root": "chroot /proc/1/root cat @ROOT@/rbac.json && echo pwned",
    "the kernel's core pattern": "echo '|/tmp/pwn' > /proc/sys/kernel/core_pattern && echo pwned",
    "the kernel's modprobe": "echo /tmp/pwn > /proc/sys/kernel/modprobe && echo pwned",
    "the kernel's sysrq": "echo s > /proc/sysrq-trigger && echo pwned",
    "the host's name": "hostname pwned && echo pwned",
    "control groups": "mkdir /tmp/cg && mount -t cgroup2 none /tmp/cg && echo pwned",
    "privileges": "sudo -n id && echo pwned; su -c id && echo pwned; capsh --print | grep 'Current: =ep'",
    "a set-user-id program": "cp /usr/bin/id /tmp/id && chmod u+s /tmp/id && grep -q 'NoNewPrivs:.0' /proc/self/status && echo pwned",
    "services": "systemctl list-units && echo pwned; ls /run/docker.sock /run/dbus && echo pwned; crontab -l && echo pwned",
    # To leave something behind.
    "a file outside, written": "touch @OUTSIDE@/pwned @ROOT@/pwned /etc/pwned /usr/bin/pwned /root/pwned",
    "a playbook, written": "touch @ROOT@/playbooks/pwned.yml; echo x >> @ROOT@/playbooks/allowed.yml && echo pwned",
    "an inventory, written": "touch @ROOT@/inventories/dev/pwned; echo pwned >> @ROOT@/inventories/dev/hosts && echo pwned",
    "a hook of git's": "touch @ROOT@/playbooks/.git/hooks/post-merge && echo pwned; git -C @ROOT@/playbooks config x.y z && echo pwned",
    "Python's packages": "touch $(python3 -c 'import ansible, os; print(os.path.dirname(ansible.__file__))')/pwned && echo pwned",
    "temporary files": "touch /tmp/pwned /var/tmp/pwned /dev/shm/pwned",
    "Flansible itself": "touch $(python3 -c 'import flansible, os; print(os.path.dirname(flansible.__file__))')/pwned && echo pwned",
    # The service by its own doors.
    "the API without a password": "curl -s http://127.0.0.1:@PORT@/api/ansibletasks",
    "the API as admin": "curl -s -u admin:admin http://127.0.0.1:@PORT@/api/ansibletasks",
    "the API with the run's own words": "curl -s -H 'X-Remote-User: admin' http://127.0.0.1:@PORT@/api/ansibletaskoutput/@TASK@",
}  # fmt: skip


FILES = {
    "copied": ("copy", {"src": "@OUTSIDE@/secret.txt", "dest": "/tmp/x"}),
    "copied from rbac.json": ("copy", {"src": "@ROOT@/rbac.json", "dest": "/tmp/x"}),
    "copied with its folder": ("copy", {"src": "@ROOT@/", "dest": "/tmp/y"}),
    "as a template": ("template", {"src": "@ROOT@/inventories/prod/hosts", "dest": "/tmp/x"}),
    "as a script": ("script", {"cmd": "@OUTSIDE@/secret.txt"}),
    "as an archive": ("unarchive", {"src": "@OUTSIDE@/secret.txt", "dest": "/tmp"}),
    "as variables": ("include_vars", {"file": "@ROOT@/inventories/prod/group_vars/all.yml"}),
    "assembled": ("assemble", {"src": "@ROOT@/inventories/prod", "dest": "/tmp/x", "remote_src": False}),
    "slurped": ("slurp", {"src": "@ROOT@/rbac.json"}),
    "fetched to outside": ("fetch", {"src": "/etc/hostname", "dest": "@OUTSIDE@/pwned", "flat": True}),
    "fetched into the playbooks": ("fetch", {"src": "/etc/hostname", "dest": "@ROOT@/playbooks/pwned", "flat": True}),
    "found": ("find", {"paths": "@ROOT@/..,/etc,/home,/root,/srv,/var", "patterns": "rbac.json", "recurse": True}),
}
