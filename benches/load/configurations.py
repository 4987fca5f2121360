#!/usr/bin/env python3
"""configurations.py NAME,NAME…: how each peer is started and configured, as JSON; null where it is not installed."""
import json, os, sys

HERE = os.path.dirname(os.path.abspath(__file__))
HEAD = """# How the peers were configured

Written by `benches/peers` beside the tables of [performance.md](performance.md). `{R}` is the directory a peer runs in,
`$PEERS_ROOT` what was installed and made for the run: binaries, certificates (ECDSA P-256), passwords. Whoever asks
authenticates as the peer has it: `user:pass`, or a session's handle with ours.
"""


def recorded(folder):
    try:
        with open(f"{folder}/configurations.json") as file:
            return json.load(file)
    except FileNotFoundError:
        return {}


def page(found):
    """The document of what was recorded; nothing if nothing was."""
    if not any(found.values()):
        return ""
    out = [HEAD]
    for name, peer in found.items():
        if not peer:
            continue
        out.append(f"## {name}\n\n```sh\n" + "\n".join(peer["commands"]) + "\n```\n")
        for path, text in peer["files"].items():
            out.append(f"`{path}`:\n\n```\n{text.strip()}\n```\n")
    return "\n".join(out)


def described(name):
    """Commands and files of a peer, by name: none if it is not at hand, empty if there is nothing to start."""
    import ats, ours, peers as P, relay

    if name in ours.WAYS:
        text, _ = ours.WAYS[name]
        peer = {"cmds": [ours.serving(name)], "conf": {"{R}/sluicegate.yaml": text}}
    elif name.removeprefix("relay-") in relay.TRANSPORTS:
        peer = {"cmds": relay.commands(name.removeprefix("relay-")), "conf": {f"{relay.STATE}/sluicegate.yaml": relay.CONFIG}}
    else:
        peer = P.PEERS.get(name)
    if peer is None:
        return None
    if not peer["cmds"]:
        return {}
    files = dict(peer["conf"])
    if peer.get("prep") == "ats":
        files["{R}/root/etc/records.config, where it differs from what is installed"] = "\n".join(f"CONFIG {key} {value}" for key, value in ats.SET.items())
    # What this machine calls them is nobody else's concern.
    places = [(P.PGEN, "pgen"), (P.NREL, "nrelay"), (ours.BEFORE, "sluicegate"), (ours.BINARY, "sluicegate"),
              (f"{relay.BINARIES}/", ""), (P.ROOT, "$PEERS_ROOT")]

    def said(text):
        for place, name in places:
            text = text.replace(place, name)
        return text
    return {"commands": [said(" ".join(command)) for command in peer["cmds"]], "files": {said(path): said(text) for path, text in files.items()}}


def main():
    sys.dont_write_bytecode = True
    sys.path[:0] = [os.environ.get("HARNESS", os.path.join(HERE, "../../../shared/peers")), HERE]
    names = dict.fromkeys(sys.argv[1].split(","))
    json.dump({name: described(name) for name in names}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
