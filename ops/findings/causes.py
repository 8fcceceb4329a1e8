"""What can be wrong with a deployment, a row a cause. docs/operating.md has the same rows as a table.

`pattern` tells lines apart that programs of ours and of others write; where each was read:

* huggingface_hub: `429 Client Error: Too Many Requests for url` (huggingface_hub#2936), told by our staging program,
  whose lines begin with `stage: `.
* vLLM: `api_server.py: error: unrecognized arguments` (vllm#27389), `Free memory on device (...) on startup is less
  than desired GPU memory utilization` (vllm#20305), `To serve at least one request ...` (vllm#34076), `The model's max
  seq len (...) is larger than` (vllm#2418).
* PyTorch: `The NVIDIA driver on your system is too old` (Fooocus#1313), `Error 804` (vllm#4940).
* Prisma: `Error: P1001: Can't reach database server at` (litellm#16190); readiness with `db: "Not connected"`
  (litellm#38121).
* llama.cpp: `error: invalid argument: --x` (run here, build 10434).
* clap, of text-embeddings-inference: `error: unexpected argument '--x' found`, `error: invalid value`.
* containerd by the kubelet: `429 Too Many Requests - Server message: toomanyrequests` (foundation#846).
* GKE's autoscaler: `Node scale up in zones ... associated with this pod failed: GCE quota exceeded. Pod is at risk of
  not being scheduled.` (Google-Cloud-Containers#126), `pod didn't trigger scale-up: ... 3 max node group size reached`
  (autoscaler#5692), `1 in backoff after failed scale-up` (2i2c infrastructure#2185).
* PersistentVolume provisioners: `Failed to provision volume with StorageClass "fast": googleapi: Error 403: Quota
  'SSD_TOTAL_GB' exceeded.` (googlecodelabs/feedback#440).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A log's last lines, and what `kubectl describe` shows besides.
LOGS = "kubectl -n {namespace} logs {pod} -c {container}"
DESCRIBE = "kubectl -n {namespace} describe pod {pod}"
_NODE = "kubectl describe node {node}"
_NODES = "kubectl get nodes -L cloud.google.com/gke-accelerator"
_OBJECT = "kubectl -n {namespace} describe {kind} {name}"
_CLAIM = "kubectl -n {namespace} describe pvc {claim}"


@dataclass(frozen=True, kw_only=True)
class Cause:
    """A row. `command` is a template: what `ops.findings.ways` makes a command of."""

    name: str  # "hub-rate-limit": what JSON calls it
    symptom: str  # what one sees first, in the words of kubectl
    means: str  # what it is
    command: str
    pattern: str = ""  # of a line that says so
    final: bool = False  # waiting does not mend it
    tries: int = 1  # how often it has to have happened before it counts as final
    gathered: bool = False  # every line that says so is told, not only the newest

    def found_in(self, text: str) -> bool:
        """Whether a text says so."""
        return bool(re.search(self.pattern, text))


# The first row whose pattern is in a line is its cause; the newest line that has one counts.
LINES = (
    Cause(
        name="not-staged",
        symptom="`Init:CrashLoopBackOff`, `hub.download is false` in the log of `stage-weights`",
        means="the weights are not whole on the claim, and the stack fetches nothing at a start",
        command="stage",
        pattern=r"^stage: .*hub\.download is false",
        final=True,
    ),
    Cause(
        name="hub-untrusted",
        symptom="`Init:CrashLoopBackOff`, a word on a certificate in the log of `stage-weights`",
        means="a proxy opens TLS, or a mirror has a CA of its own, and the stack does not know it",
        command="trust",
        pattern=r"^stage: the certificate that answers for the hub is not trusted",
        final=True,
    ),
    Cause(
        name="hub-rate-limit",
        symptom="`Init:CrashLoopBackOff`, or `Init:0/1` for many minutes; `429` in the log of `stage-weights`",
        means="the hub limits this address; staging waits and tries again by itself",
        command=LOGS,
        pattern=r"^stage: .*(answers 429\b|\b429 Client Error|Too Many Requests|rate.?limit)",
    ),
    Cause(
        name="hub-refused",
        symptom="`Init:CrashLoopBackOff`, `401` or `403` in the log of `stage-weights`",
        means="the hub does not let us in: the model is gated or private, or the token is not one of an account that "
        "accepted its licence",
        command="secret",
        pattern=r"^stage: .*(the hub refuses|\b40[13] Client Error|the token of the hub no token)",
        final=True,
    ),
    Cause(
        name="hub-unknown",
        symptom="`Init:CrashLoopBackOff`, `404` in the log of `stage-weights`",
        means="the hub does not know this model or revision",
        command="ops pin",
        pattern=r"^stage: .*(the hub does not know|\b404 Client Error)",
        final=True,
    ),
    Cause(
        name="claim-full",
        symptom="`CrashLoopBackOff`, `No space left on device`",
        means="the claim or disk is full, or too small for what has to be on it",
        command="grow",
        pattern=r"has no room for|No space left on device|ENOSPC|Disk quota exceeded|[Ee]rrno 28\b",
        final=True,
    ),
    Cause(
        name="claim-unusable",
        symptom="`Init:CrashLoopBackOff`, staging cannot use the claim",
        means="the files on the claim are another user's, or its volume is broken",
        command=LOGS,
        pattern=r"^stage: the claim of .* cannot be used",
        final=True,
    ),
    Cause(
        name="weights-wrong",
        symptom="`Init:CrashLoopBackOff`, staging names a file",
        means="the weights on the claim, or on the hub, are not what the catalog says",
        command=LOGS,
        pattern=r"^stage: (?!.*(trying again|gave up)).*(has no file|no file of it is staged|[Cc]hecksum|"
        r"not the file of this revision|[Ss][Hh][Aa].?256|damaged|differ)",
        final=True,
    ),
    Cause(
        name="hub-away",
        symptom="`Init:0/1` for many minutes or `Init:CrashLoopBackOff`, no connection in the log of `stage-weights`",
        means="the hub cannot be reached from the pod, or what it sends is cut; staging tries again by itself",
        command=LOGS,
        pattern=r"^stage: .*(trying again in|gave up on|[Cc]onnect|[Tt]imed? ?out|[Rr]esolv|answers 5\d\d\b|"
        r"\b5\d\d Server Error)",
    ),
    Cause(
        name="gpu-memory",
        symptom="`CrashLoopBackOff`, `CUDA out of memory` or a word on the KV cache",
        means="the model does not fit into the GPU memory that is free: of its share, or since another one holds it",
        command="ops fit {alias}",
        pattern=r"CUDA out of memory|OutOfMemoryError|Free memory on device .* is less than|"
        r"KV cache is needed, which is larger|larger than the maximum number of tokens that can be stored in KV cache|"
        r"No available memory for the cache blocks|exceeds available Mamba cache blocks|CUDA error: out of memory",
        final=True,
        tries=2,
    ),
    Cause(
        name="gpu-driver",
        symptom="`CrashLoopBackOff` or `RunContainerError`, a word on the NVIDIA driver or on CUDA's version",
        means="the node's driver does not fit the CUDA of the image, or there is none",
        command=_NODE,
        pattern=r"NVIDIA driver on your system is too old|CUDA driver version is insufficient|Found no NVIDIA driver|"
        r"no CUDA-capable device|nvidia-container-cli|unsatisfied condition: cuda|Failed to infer device type|"
        r"Error 80[0-9]\b|no kernel image is available|libcuda\.so",
        final=True,
        tries=2,
    ),
    Cause(
        name="gpu-error",
        symptom="`CrashLoopBackOff`, another error of CUDA",
        means="the GPU or its libraries failed",
        command=_NODE,
        pattern=r"CUDA error|CUDA_ERROR|cudaError|CUBLAS_STATUS|CUDNN_STATUS|NCCL error|\bXid\b",
    ),
    Cause(
        name="bad-argument",
        symptom="`CrashLoopBackOff` within seconds, exit code 2",
        means="the engine does not take an argument that it was started with",
        command="kubectl -n {namespace} get pod {pod} -o jsonpath={{.spec.containers[*].args}}",
        pattern=r"error: (unrecognized arguments|invalid argument: |argument |the following arguments are required|"
        r"unexpected argument|invalid value|ambiguous option|a value is required)|"
        r"ValidationError: \d+ validation errors? for \w*Config",
        final=True,
    ),
    Cause(
        name="no-user",
        symptom="`CrashLoopBackOff`, `getpwuid(): uid not found`",
        means="the image has no user of the number that the pod runs as, and the engine asks for its name",
        command=LOGS,
        pattern=r"getpwuid\(\): uid not found|no such user|I have no name",
        final=True,
    ),
    Cause(
        name="database-password",
        symptom="`CrashLoopBackOff` of `litellm` or `litellm-migrate`, `P1000`",
        means="the database was made with another password than the gateway has",
        command=LOGS,
        pattern=r"P1000\b|password authentication failed",
        final=True,
        tries=2,
    ),
    Cause(
        name="migration-failed",
        symptom="the Job `litellm-migrate-...` is `Failed`, `P3009` or `P3018`",
        means="the schema of the gateway's database cannot be migrated as it stands",
        command=LOGS,
        pattern=r"P30(05|06|09|18)\b|migrate found failed migrations",
        final=True,
    ),
    Cause(
        name="database-data",
        symptom="`CrashLoopBackOff` of `litellm-db-0`",
        means="PostgreSQL does not start on the data that is on its claim",
        command=LOGS,
        pattern=r"FATAL: .*(data directory|database files are incompatible|initialized by PostgreSQL|permissions)|"
        r"initdb: error",
        final=True,
        tries=2,
    ),
    Cause(
        name="database-away",
        symptom="`litellm` is not ready or answers 503 `no_db_connection`; `P1001` in its log",
        means="the gateway's database does not answer",
        command="kubectl -n {namespace} describe pods -l app.kubernetes.io/name=litellm-db",
        pattern=r"P10(01|02|08|17)\b|Can't reach database server|no_db_connection|EngineConnectionError|"
        r"its database does not|[\"']?db[\"']?: ?[\"']?[Nn]ot connected|too many clients already|"
        r"remaining connection slots|could not translate host name|connection to server .* failed",
    ),
    Cause(
        name="gateway-away",
        symptom="the Job `litellm-keys-...` is `Failed`, exit code 3",
        means="the program that makes the keys could not reach the gateway",
        command="kubectl -n {namespace} describe pods -l app.kubernetes.io/name=litellm",
        pattern=r"the gateway stays out of reach",
    ),
    Cause(
        name="keys-refused",
        symptom="the Job `litellm-keys-...` is `Failed`, exit code 1 or 2",
        means="the gateway refused a team or a key, or something made by hand is in its way",
        command=LOGS,
        pattern=r"^(refused|problem|not done|wrong input[^:]*): |^not in sync after|^not set in the environment",
        final=True,
        gathered=True,
    ),
)

PULLS = (
    Cause(
        name="image-rate-limit",
        symptom="`ImagePullBackOff`, `toomanyrequests`",
        means="the registry limits this address; the kubelet tries again by itself",
        command=DESCRIBE,
        pattern=r"toomanyrequests|\b429\b|rate limit",
    ),
    Cause(
        name="image-denied",
        symptom="`ImagePullBackOff`, `401`, `403` or `denied`",
        means="the registry does not let the node pull this image",
        command=DESCRIBE,
        pattern=r"\b40[13]\b|unauthorized|[Dd]enied|[Ff]orbidden|authorization failed|insufficient_scope",
        final=True,
        tries=2,
    ),
    Cause(
        name="image-unknown",
        symptom="`ImagePullBackOff`, `not found`; or `InvalidImageName`",
        means="the registry has no such image, tag or digest",
        command="ops pin",
        pattern=r"not found|NotFound|manifest unknown|InvalidImageName|couldn't parse image|invalid reference format|"
        r"no match for platform",
        final=True,
    ),
    Cause(
        name="node-disk-full",
        symptom="`ImagePullBackOff`, `no space left on device`",
        means="the node's disk has no room for the image",
        command=DESCRIBE,
        pattern=r"no space left",
    ),
    Cause(
        name="image-pull",
        symptom="`ErrImagePull` or `ImagePullBackOff`, anything else",
        means="the node cannot pull the image; the kubelet tries again by itself",
        command=DESCRIBE,
    ),
)

PODS = (
    Cause(
        name="memory",
        symptom="`OOMKilled`, exit code 137",
        means="the container needed more memory than its limit",
        command=DESCRIBE,
        final=True,
        tries=3,
    ),
    Cause(
        name="probe",
        symptom="`Running` but never ready, restarts, exit code 137 or 143 without `OOMKilled`",
        means="the container did not answer its probe in time and was ended",
        command=LOGS,
    ),
    Cause(
        name="missing-object",
        symptom="`CreateContainerConfigError`, or `ContainerCreating` with `FailedMount`",
        means="a Secret, a ConfigMap or a key of one is not there",
        command="deploy",
        final=True,
        tries=2,
    ),
    Cause(
        name="container-refused",
        symptom="`CreateContainerConfigError`, `CreateContainerError` or `RunContainerError`",
        means="the node does not start the container",
        command=DESCRIBE,
    ),
    Cause(
        name="mount",
        symptom="`ContainerCreating` or `Init:0/1` with `FailedMount` or `FailedAttachVolume`",
        means="a volume cannot be mounted",
        command=DESCRIBE,
    ),
    Cause(
        name="evicted",
        symptom="`Evicted`, or `Error` with a word on a node's shutdown",
        means="the node ended the pod: it ran low on disk or memory, the pod used more scratch space than it may, or "
        "the node went away",
        command=DESCRIBE,
    ),
    Cause(
        name="stuck-terminating",
        symptom="`Terminating` long after its grace period",
        means="the node that should end the pod does not answer, so what waits for its GPU or claim waits too",
        command=DESCRIBE,
    ),
    Cause(
        name="unknown",
        symptom="`CrashLoopBackOff` or `Error`, none of the others",
        means="the container ends by itself; its last words",
        command=LOGS,
    ),
)

SCHEDULING = (
    Cause(
        name="node-quota",
        symptom="`Pending` with `FailedScaleUp`, `quota exceeded`",
        means="a quota of the cloud project does not allow another node",
        command="quota",
        pattern=r"[Qq]uota",
    ),
    Cause(
        name="stock-out",
        symptom="`Pending` with `FailedScaleUp`, `out of resources`",
        means="the zone has no such machine left right now; the autoscaler tries again by itself",
        command=DESCRIBE,
        pattern=r"out of resources|[Ss]tock.?out|EXHAUSTED|resource_availability|exhausted",
    ),
    Cause(
        name="scale-up-failed",
        symptom="`Pending` with `FailedScaleUp`, or `in backoff after failed scale-up`",
        means="the autoscaler could not make a node",
        command=DESCRIBE,
        pattern=r"failed",
    ),
    Cause(
        name="gpu-taken",
        symptom="`Pending`, `Insufficient nvidia.com/gpu` or `max node group size reached`",
        means="another pod holds the GPU that this one waits for",
        command="down {holder}",
    ),
    Cause(
        name="pool-full",
        symptom="`Pending` with `NotTriggerScaleUp`, `max node group size reached`",
        means="the node pool is at its largest",
        command=_NODES,
    ),
    Cause(
        name="no-node",
        symptom="`Pending`, `didn't match Pod's node affinity/selector`, or `Insufficient nvidia.com/gpu`",
        means="no node, and no pool that could grow, is of the kind that the pod asks for",
        command=_NODES,
    ),
    Cause(
        name="node-full",
        symptom="`Pending`, `Insufficient cpu`, `memory` or `ephemeral-storage`, `Too many pods`",
        means="no node has room for the pod",
        command="kubectl describe nodes",
    ),
    Cause(
        name="cordoned",
        symptom="`Pending`, `node(s) were unschedulable`",
        means="the nodes that would do take no new pods (cordoned)",
        command=_NODES,
    ),
    Cause(
        name="claim-elsewhere",
        symptom="`Pending` with `volume node affinity conflict`, or `ContainerCreating` with `Multi-Attach error`",
        means="the pod's volume is in another zone, or still attached to another node",
        command=DESCRIBE,
        pattern=r"volume node affinity conflict|PersistentVolume's node affinity|Multi-Attach error",
    ),
    Cause(
        name="unschedulable",
        symptom="`Pending`, anything else that the scheduler says",
        means="no node takes the pod",
        command=DESCRIBE,
    ),
)

CLAIMS = (
    Cause(
        name="no-default-class",
        symptom="claim `Pending`, `no storage class is set`",
        means="the cluster has no default StorageClass, and the claims of the platform name none",
        command="default-class {storage_class}",
        final=True,
    ),
    Cause(
        name="no-class",
        symptom="claim `Pending`, `storageclass ... not found`",
        means="the cluster has no StorageClass of that name",
        command="kubectl get storageclasses",
        pattern=r"storageclass\S* .*not found",
        final=True,
    ),
    Cause(
        name="disk-quota",
        symptom="claim `Pending` with `ProvisioningFailed`, a quota",
        means="a quota of the cloud project does not allow the disk",
        command="quota",
        pattern=r"[Qq]uota|QUOTA",
    ),
    Cause(
        name="provisioning-failed",
        symptom="claim `Pending` with `ProvisioningFailed`",
        means="the volume cannot be made; the provisioner tries again by itself",
        command=_CLAIM,
    ),
    Cause(
        name="provisioner-silent",
        symptom="claim `Pending` with `ExternalProvisioning` for minutes",
        means="nothing answers for the provisioner of the StorageClass",
        command=_CLAIM,
    ),
    Cause(
        name="claim-lost",
        symptom="claim `Lost`",
        means="the claim's volume is gone",
        command=_CLAIM,
        final=True,
    ),
    Cause(
        name="claim-growth",
        symptom="a claim keeps its old size, `VolumeResizeFailed`",
        means="the claim's volume cannot grow",
        command=_CLAIM,
    ),
)

NODES = (
    Cause(
        name="node-not-ready",
        symptom="node `NotReady`; pods `Pending`, `Unknown` or `Terminating`",
        means="the node does not answer, or is not ready yet",
        command=_NODE,
    ),
    Cause(
        name="node-pressure",
        symptom="node with `DiskPressure`, `MemoryPressure` or `PIDPressure`; pods `Evicted`",
        means="the node runs out of what its condition names",
        command=_NODE,
    ),
    Cause(
        name="node-without-gpu",
        symptom="node with a GPU's label and no `nvidia.com/gpu` to give",
        means="the GPU's driver or device plugin does not run on the node",
        command=_NODE,
    ),
)

ADMISSION = (
    Cause(
        name="pod-security",
        symptom="no pod at all; `FailedCreate`, `violates PodSecurity`",
        means="Pod Security of the namespace refuses the pod",
        command=_OBJECT,
        pattern=r"violates PodSecurity",
        final=True,
        tries=2,
    ),
    Cause(
        name="resource-quota",
        symptom="no pod at all; `FailedCreate`, `exceeded quota`",
        means="the namespace's ResourceQuota does not allow the pod",
        command="kubectl -n {namespace} describe resourcequota",
        pattern=r"exceeded quota|failed quota",
    ),
    Cause(
        name="webhook-refused",
        symptom="no pod at all; `FailedCreate`, `admission webhook ... denied the request`",
        means="a policy of the cluster refuses the pod",
        command=_OBJECT,
        pattern=r"denied the request|ValidatingAdmissionPolicy",
        final=True,
        tries=2,
    ),
    Cause(
        name="webhook-away",
        symptom="no pod at all; `FailedCreate`, `failed calling webhook`",
        means="a webhook that judges pods does not answer, so none is made",
        command="kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations",
        pattern=r"failed calling webhook|failed to call webhook",
    ),
    Cause(
        name="create-refused",
        symptom="no pod at all; `FailedCreate`, anything else",
        means="the API server does not make the pod",
        command=_OBJECT,
    ),
)

WORKLOADS = (
    Cause(
        name="job-failed",
        symptom="a Job is `Failed`, and none of the others says why",
        means="the Job gave up",
        command=_OBJECT,
        final=True,
    ),
    Cause(
        name="at-zero",
        symptom="`litellm` or `litellm-db` has no pods, `0/0`",
        means="somebody scaled a part of the gateway to zero",
        command="deploy",
    ),
    Cause(
        name="not-deployed",
        symptom="a namespace of the platform is not there",
        means="nothing of the platform is deployed there",
        command="deploy",
    ),
    Cause(
        name="policies-unenforced",
        symptom="none: pods reach what the network policies close",
        means="nothing on this cluster enforces network policies",
        command="kubectl get daemonsets --all-namespaces",
    ),
)

CAUSES: Mapping[str, Cause] = {
    cause.name: cause for cause in (*LINES, *PULLS, *PODS, *SCHEDULING, *CLAIMS, *NODES, *ADMISSION, *WORKLOADS)
}


def first(rows: Iterable[Cause], text: str) -> Cause | None:
    """The row whose pattern is in a text; one without a pattern is for whatever is left."""
    return next((row for row in rows if row.found_in(text)), None)


def of_lines(text: str) -> tuple[Cause, str] | None:
    """The cause that the newest line with one names, and that line.

    The last line of our staging program stands alone: what it had to wait for before is over by then.
    """
    for line in reversed(text.splitlines()):
        if row := first(LINES, line):
            lines = [each for each in text.splitlines() if row.found_in(each)] if row.gathered else [line]
            return row, "; ".join(dict.fromkeys(lines))
        if line.startswith("stage: "):
            return None
    return None


_WRAPPERS = re.compile(r"Engine core initialization failed|See root cause above|Failed core proc")
_LOUD = re.compile(r"\b\w*(Error|Exception)\b|\b(FATAL|PANIC|panic|fatal|error|ERROR)\b")


def last_words(text: str) -> str:
    """The line of a log that says most: the newest one that tells an error, else the newest."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    loud = [line for line in lines if _LOUD.search(line) and not _WRAPPERS.search(line)]
    return (loud or lines or [""])[-1]
