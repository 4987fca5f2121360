"""A container of a Kubernetes manifest as arguments of `docker run`, one a line: what of it docker has too.

pod.py FILE KIND CONTAINER [VOLUME=SOURCE...]
"""

import sys

import yaml

file, kind, name, *given = sys.argv[1:]
sources = dict(volume.split("=", 1) for volume in given)
with open(file) as text:
    [resource] = [part for part in yaml.safe_load_all(text) if part["kind"] == kind]
pod = resource["spec"] if kind == "Pod" else resource["spec"]["template"]["spec"]
[container] = [c for c in pod.get("initContainers", []) + pod["containers"] if c["name"] == name]

user = pod["securityContext"]
run = ["--user", f"{user['runAsUser']}:{user['runAsGroup']}"]
if "fsGroup" in user:
    run += ["--group-add", str(user["fsGroup"])]
security = container["securityContext"]
for capability in security["capabilities"]["drop"]:
    run += ["--cap-drop", capability]
if not security["allowPrivilegeEscalation"]:
    run += ["--security-opt", "no-new-privileges"]
if security.get("readOnlyRootFilesystem"):
    run += ["--read-only"]
for variable in container.get("env", []):
    run += ["--env", f"{variable['name']}={variable['value']}"]
for mount in container["volumeMounts"]:
    mode = "ro" if mount.get("readOnly") else "rw"
    run += ["--volume", f"{sources[mount['name']]}:{mount['mountPath']}:{mode}"]
command = container.get("command", [])
if command:
    run += ["--entrypoint", command[0]]
image = sources.get("image", container["image"])
print("\n".join(run + [image] + command[1:] + container.get("args", [])))
