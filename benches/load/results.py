"""What a run wrote, as figures by peer: every round without an error and with the processors to itself counts, and every other is named.

results.py RESULTS SUITE: the peers that have fewer rounds of SUITE with the processors to themselves than rounds, with commas between them."""
import json, re, statistics, sys
from collections import defaultdict

# The files of a run, and the group whose peers are held against one another in it. `direct` is in both.
FILES = {"egress": "egress", "idle": "egress", "relay": "relay", "growth": "growth"}


# Of a round in which other guests took more than this of one processor (steal) neither times nor rates are ours, or a peer's.
MOST_STOLEN = 0.1


def stolen(result):
    return (result.get("steal_s") or 0) > MOST_STOLEN * (result.get("wall_s") or 1)


def failed(result):
    return bool(result.get("error") or result.get("errors"))


class Results:
    def __init__(self, folder):
        # By group: (peer, label, key) to the values of the rounds. Of growth: (series, label, key, value).
        self.values = {group: defaultdict(list) for group in FILES.values()}
        self.measured, self.steal = 0.0, 0.0
        self._good, self._bad, rounds = defaultdict(int), defaultdict(list), defaultdict(list)
        for name, group in FILES.items():
            for line in lines(f"{folder}/{name}.jsonl"):
                result = json.loads(line)
                who = f"growth, {result['series']} {result['value']:,}" if group == "growth" else result["peer"]
                rounds[group, who, result.get("suite"), result.get("label")].append(result)
        self.rounds, self.stolen, self.only_stolen = 0, 0, []
        for (group, who, _, label), results in rounds.items():
            self.rounds += len(results)
            self.stolen += sum(map(stolen, results))
            # What failed is named, whoever had the processor; of the rest those count that had it to themselves, if there are any.
            whole = [result for result in results if not failed(result)]
            own = [result for result in whole if not stolen(result)]
            if whole and not own:
                self.only_stolen.append(f"{who}: {label}")
            for result in [*filter(failed, results), *(own or whole)]:
                self._take(group, result)

    def _take(self, group, result):
        label = result.get("label")
        peer = f"growth, {result['series']} {result['value']:,}" if group == "growth" else result["peer"]
        place = peer, result.get("suite"), label
        # A round in which something failed did less, or other, work: its figures are no figures of the rest.
        if failed(result):
            self._bad[place].append(result)
            return
        self._good[place] += 1
        self.measured += result.get("wall_s") or 0
        self.steal += result.get("steal_s") or 0
        flat = {key: value for key, value in result.items() if isinstance(value, (int, float))}
        flat |= {f"lat.{key}": value for key, value in (result.get("lat") or {}).items()}
        for key, value in flat.items():
            at = (result["series"], label, key, result["value"]) if group == "growth" else (peer, label, key)
            self.values[group][at].append(value)

    def errors(self):
        """A line for each measurement that had rounds with errors: how many are left out, and what was told."""
        for (peer, suite, label), rounds in self._bad.items():
            if label:
                all_rounds = len(rounds) + self._good[peer, suite, label]
                left = self._good[peer, suite, label]
                what = f"{label}: {len(rounds)} of {all_rounds} rounds left out, " + (f"{left} remain" if left > 1 else "1 remains" if left else "none remains")
            else:
                what = f"{f'{suite}: ' if suite else ''}did not start in {len(rounds)} {'round' if len(rounds) == 1 else 'rounds'}"
            told = dict.fromkeys(filter(None, (tell(result) for result in rounds)))
            yield f"- {peer}: {what}{': ' if told else ''}{'; '.join(told)}"


def tell(result):
    told = str(result.get("error") or result.get("first_error") or "")
    # Where its output is on the machine that measured is nobody else's concern.
    told = " ".join(re.sub(r"(^|,?\s+(see\s+)?)/\S+", "", told).split())[:100]
    return f"{result['errors']:,} × {told}" if result.get("errors") else told


def lines(path):
    try:
        with open(path) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def figure(number):
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.1f}" if abs(number) >= 10 else f"{number:.3g}"


def spread(values):
    if len(values) < 2:
        return figure(values[0])
    return f"{figure(statistics.median(values))} ({figure(min(values))} to {figure(max(values))})"


def wanting(folder, suite):
    """Peers of the suite with a measurement of which fewer rounds were their own than there were rounds."""
    rounds, own = defaultdict(int), defaultdict(int)
    for name in FILES:
        for line in lines(f"{folder}/{name}.jsonl"):
            result = json.loads(line)
            if name != "growth" and result.get("suite") == suite:
                place = result["peer"], result.get("label")
                rounds[place] = max(rounds[place], result["round"] + 1)
                own[place] += not stolen(result)
    return dict.fromkeys(peer for (peer, label), count in rounds.items() if own[peer, label] < count)


if __name__ == "__main__":
    print(",".join(wanting(*sys.argv[1:3])))
