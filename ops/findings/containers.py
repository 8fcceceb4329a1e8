"""What is wrong with the containers of a pod that has its node. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from components.gateway import litellm_gateway, postgres
from components.kubernetes.never_shrink import stored_gib
from components.kubernetes.pods import NAME_LABEL
from ops.findings.causes import CAUSES, LINES, PULLS, Cause, first, last_words, of_lines
from ops.findings.finding import Finding, Object, Snapshot, condition, event_count, event_time, older_than, time_of

_IMAGE = {
    *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
    *("ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"),
}
_NOT_STARTED = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
_MOUNTS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox")
_MISSING = re.compile(
    r'(secret|configmap) "[^"]+" not found|couldn\'t find key .* in (Secret|ConfigMap)|references non-existent \w+ key'
)
# For this long after it, an event of the kubelet tells of now: it repeats what still holds within two minutes.
_FRESH = timedelta(minutes=5)
_GROWTH = 1.5  # of a claim that is full, where its own program says no size
_ASKED_GIB = re.compile(r"claimGib (\d+)")
_LONG_TERMINATING_S = 120  # beyond the grace period
_GONE = ("Evicted", "NodeShutdown", "Terminated", "NodeLost", "NodeAffinity", "Shutdown", "Preempting")


def of_pod(pod: Object, snapshot: Snapshot) -> Iterator[Finding]:
    """Findings of a pod, at most one a container; what a later container waits for is told of the earlier one."""
    if pod["metadata"].get("deletionTimestamp"):
        yield from _terminating(pod, snapshot)
        return
    status = pod.get("status", {})
    if status.get("phase") == "Failed" and status.get("reason") in _GONE:
        words = status.get("message", "")
        state = f"{status['phase']}, {status['reason']}"
        yield snapshot.about_pod(CAUSES["evicted"], pod, state=state, words=words, seen=_ended_at(status))
        return
    initial = list(_of_containers(pod, "init", snapshot))
    yield from initial or _of_containers(pod, "main", snapshot)
    if not initial and (found := _mount(pod, snapshot)):
        yield found


def logs_wanted(pod: Object) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Containers whose last lines a finding may need, each with the options by which kubectl gets them."""
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp") or not pod["spec"].get("nodeName"):
        return
    initial = {entry["name"] for entry in status.get("initContainerStatuses", ())}
    for entry in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        state = entry.get("state", {})
        if "running" in state and not entry.get("ready"):
            crashed = entry.get("restartCount", 0) > 0 and entry["name"] not in initial
            yield entry["name"], ("--previous",) if crashed else ()
        elif _ended(entry) and not entry.get("ready"):
            yield entry["name"], ()
        elif "running" in state and pod["metadata"].get("labels", {}).get(NAME_LABEL) == litellm_gateway.APP:
            # It stays ready without its database, so that keys that were used lately are served.
            yield entry["name"], ("--since=2m",)


def _of_containers(pod: Object, which: str, snapshot: Snapshot) -> Iterator[Finding]:
    status = pod.get("status", {})
    entries = status.get("initContainerStatuses" if which == "init" else "containerStatuses", ())
    for entry in entries:
        if found := _of_container(pod, entry, snapshot):
            yield found


def _of_container(pod: Object, entry: Object, snapshot: Snapshot) -> Finding | None:
    waiting: Object = entry.get("state", {}).get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in _IMAGE:
        return _image(pod, entry, snapshot)
    if reason in _NOT_STARTED:
        return _not_started(pod, entry, snapshot)
    ended = _ended(entry)
    # One that runs again is told of only where it will be killed again.
    if ended and (not entry.get("ready") or ("running" in entry["state"] and ended.get("reason") == "OOMKilled")):
        return _crashed(pod, entry, ended, snapshot)
    if "running" in entry.get("state", {}):
        return _running(pod, entry, snapshot)
    return None


def _ended(entry: Object) -> Object | None:
    """How a container ended that did not end well: this time, or the last time."""
    for when in ("state", "lastState"):
        ended = entry.get(when, {}).get("terminated")
        if ended and (ended.get("exitCode") or ended.get("reason") == "OOMKilled"):
            return ended
    return None


def _state(pod: Object, entry: Object) -> str:
    """As kubectl prints it, with what it leaves out."""
    state = entry.get("state", {})
    kind = next(iter(state), "waiting")
    now: Object = state.get(kind) or {}
    reason = now.get("reason") or {"running": "running" if entry.get("ready") else "running, not ready"}.get(kind, kind)
    initial = any(entry["name"] == c["name"] for c in pod["spec"].get("initContainers", ()))
    restarts = entry.get("restartCount", 0)
    count = f", {restarts} restart{'s' if restarts > 1 else ''}" if restarts else ""
    return f"{'Init:' if initial and kind != 'running' else ''}{reason}{count}"


def _log(pod: Object, name: str, snapshot: Snapshot) -> str:
    return snapshot.logs.get((pod["metadata"]["namespace"], pod["metadata"]["name"], name), "")


# --- one kind each ---------------------------------------------------------------------------------------------


def _image(pod: Object, entry: Object, snapshot: Snapshot) -> Finding:
    waiting = entry["state"]["waiting"]
    events = [e for e in snapshot.events(pod, "Failed", "InspectFailed") if "ull image" in e.get("message", "")]
    said = waiting.get("message", "")
    # In its back-off the kubelet may say no more than that; the event has the registry's own words.
    words = events[-1]["message"] if events and not re.search(r"(?i)failed|rpc error", said) else said
    row = first(PULLS, f"{waiting['reason']} {words}") or PULLS[-1]
    return snapshot.about_pod(
        row,
        pod,
        container=entry["name"],
        state=_state(pod, entry),
        words=words,
        seen=event_time(events[-1]) if events else None,
        times=event_count(events[-1]) if events else 1,
    )


def _not_started(pod: Object, entry: Object, snapshot: Snapshot) -> Finding:
    words = entry["state"]["waiting"].get("message", "")
    events = [e for e in snapshot.events(pod, "Failed") if words and words in e.get("message", "")]
    row = CAUSES["container-refused"]
    if _MISSING.search(words):
        row = CAUSES["missing-object"]
    elif found := of_lines(words):
        row = found[0]
    return snapshot.about_pod(
        row,
        pod,
        container=entry["name"],
        state=_state(pod, entry),
        words=words,
        seen=event_time(events[-1]) if events else None,
        times=event_count(events[-1]) if events else 1,
    )


def _crashed(pod: Object, entry: Object, ended: Object, snapshot: Snapshot) -> Finding:
    name = entry["name"]
    # Its own message (the log's end, where the container asked for that) and the log, which has more.
    text = "\n".join(part for part in (_log(pod, name, snapshot), ended.get("message") or "") if part)
    row, words = _why_ended(pod, entry, ended, text, snapshot)
    code = f"exit code {ended.get('exitCode')}"
    reason = ended.get("reason")
    told = f"{_state(pod, entry)}, {code}" + (f" ({reason})" if reason not in (None, "Error", "Completed") else "")
    return snapshot.about_pod(
        row,
        pod,
        container=name,
        state=told,
        words=words,
        seen=time_of(ended.get("finishedAt")),
        times=entry.get("restartCount", 0) + ("terminated" in entry.get("state", {})),
        gib=_more_gib(pod, words, snapshot),
    )


def _why_ended(pod: Object, entry: Object, ended: Object, text: str, snapshot: Snapshot) -> tuple[Cause, str]:
    if ended.get("reason") == "OOMKilled":
        limit = next(
            (c.get("resources", {}).get("limits", {}).get("memory") for c in _specs(pod) if c["name"] == entry["name"]),
            None,
        )
        last = last_words(text)
        said = f"OOMKilled at a limit of {limit or 'the node'}"
        return CAUSES["memory"], f"{said}; last line: {last}" if last else said
    if found := of_lines(text):
        return found
    by_probe = re.compile(rf"\b{re.escape(entry['name'])} failed \w+ probe")
    killed = [event for event in snapshot.events(pod, "Killing") if by_probe.search(event.get("message", ""))]
    if killed:
        failed = _probe_words(pod, entry["name"], snapshot)
        return CAUSES["probe"], "; ".join(part for part in (killed[-1]["message"], failed, last_words(text)) if part)
    return CAUSES["unknown"], last_words(text)


def _specs(pod: Object) -> Iterator[Object]:
    yield from pod["spec"].get("initContainers", ())
    yield from pod["spec"]["containers"]


def _running(pod: Object, entry: Object, snapshot: Snapshot) -> Finding | None:
    """Of one that runs: what it waits for, as far as it says so itself."""
    text = _log(pod, entry["name"], snapshot)
    found = of_lines(text)
    if entry.get("ready") and found and found[0] is not CAUSES["database-away"]:
        found = None
    if found and _tells_of_now(*found):
        row, words = found
        return snapshot.about_pod(row, pod, container=entry["name"], state=_state(pod, entry), words=words)
    if entry.get("ready"):
        return None
    failing = [
        event
        for event in snapshot.events(pod, "Unhealthy")
        if "Readiness probe" in event.get("message", "") and _of_one(event, entry["name"])
    ]
    # A probe of a start fails until the start is over; one of readiness, once started, means that nothing is served.
    if entry.get("started") and failing and _fresh(failing[-1], snapshot):
        return snapshot.about_pod(
            CAUSES["probe"],
            pod,
            container=entry["name"],
            state=_state(pod, entry),
            words="; ".join(part for part in (failing[-1]["message"], last_words(text)) if part),
            seen=event_time(failing[-1]),
        )
    return None


def _tells_of_now(row: Cause, line: str) -> bool:
    """Whether a line of a container that runs says what it waits for: of others it would have ended."""
    return row.name in ("database-away", "gateway-away") or (row in LINES and "trying again" in line)


def _of_one(event: Object, container: str) -> bool:
    path = event.get("involvedObject", {}).get("fieldPath", "")
    return not path or path.endswith(f"{{{container}}}")


def _fresh(event: Object, snapshot: Snapshot) -> bool:
    return not older_than(snapshot, event_time(event), _FRESH.total_seconds())


def _probe_words(pod: Object, container: str, snapshot: Snapshot) -> str:
    failed = [event for event in snapshot.events(pod, "Unhealthy") if _of_one(event, container)]
    return failed[-1].get("message", "") if failed else ""


def _mount(pod: Object, snapshot: Snapshot) -> Finding | None:
    """A volume that keeps every container from starting."""
    status = pod.get("status", {})
    entries = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    begun = any("running" in e.get("state", {}) or _ended(e) or e.get("restartCount") for e in entries)
    if begun or status.get("phase") != "Pending" or not pod["spec"].get("nodeName"):
        return None
    events = snapshot.events(pod, *_MOUNTS)
    if not events or not _fresh(events[-1], snapshot):
        return None
    event = events[-1]
    words, row = event.get("message", ""), CAUSES["mount"]
    if _MISSING.search(words):
        row = CAUSES["missing-object"]
    elif re.search(CAUSES["claim-elsewhere"].pattern, words):
        row = CAUSES["claim-elsewhere"]
    state = f"ContainerCreating, {event['reason']}"
    seen, times = event_time(event), event_count(event)
    return snapshot.about_pod(row, pod, state=state, words=words, seen=seen, times=times)


def _terminating(pod: Object, snapshot: Snapshot) -> Iterator[Finding]:
    # The API sets it to the end of the grace period.
    due = time_of(pod["metadata"]["deletionTimestamp"])
    if not older_than(snapshot, due, _LONG_TERMINATING_S):
        return
    node = snapshot.get("Node", "", pod["spec"].get("nodeName", ""))
    ready = condition(node, "Ready") if node else None
    words = "" if node else "its node is gone"
    if ready and ready.get("status") != "True":
        words = f"its node is not ready: {ready.get('message', '')}"
    yield snapshot.about_pod(CAUSES["stuck-terminating"], pod, state="Terminating", words=words)


def _ended_at(status: Object) -> datetime | None:
    ready = condition({"status": status}, "DisruptionTarget") or condition({"status": status}, "Ready")
    return time_of(ready.get("lastTransitionTime")) if ready else None


def _more_gib(pod: Object, words: str, snapshot: Snapshot) -> str:
    """The size to ask for of a claim that is full: what its program asks for, or half as much again."""
    if asked := _ASKED_GIB.search(words):
        return asked[1]
    names = [
        v["persistentVolumeClaim"]["claimName"] for v in pod["spec"].get("volumes", ()) if "persistentVolumeClaim" in v
    ]
    for name in names:
        claim = snapshot.get("PersistentVolumeClaim", pod["metadata"]["namespace"], name)
        if claim and (size := stored_gib(claim)):
            least = 10 if pod["metadata"].get("labels", {}).get(NAME_LABEL) == postgres.APP else 1
            return str(max(least, round(size * _GROWTH + 0.5)))
    return "<GIB>"
