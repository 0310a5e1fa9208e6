"""One authority and one certificate for the control plane, a key for service accounts, tokens."""

import secrets
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster.prerequisites import program
from e2e.cluster.progress import run

AUTHORITY_EXTENSIONS = """\
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
SERVER_EXTENSIONS = """\
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""
# user -> its groups
USERS = {
    "admin": ("system:masters",),
    "system:kube-controller-manager": (),
    "system:kube-scheduler": (),
    "system:kube-proxy": ("system:node-proxier",),
}


def make(folder: Path, addresses: Sequence[str], names: Sequence[str]) -> None:
    """Write ca.crt, ca.key, server.crt, server.key and service-account.{key,pub} into `folder`.

    The server's certificate also proves the API server to etcd and to the kubelet.
    """
    openssl = program("openssl")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    alternatives = [f"IP:{address}" for address in addresses] + [f"DNS:{name}" for name in names]
    extensions = folder / "extensions.conf"
    extensions.write_text(
        "[req]\ndistinguished_name = name\n[name]\n"
        + AUTHORITY_EXTENSIONS
        + SERVER_EXTENSIONS.format(names=", ".join(alternatives))
    )

    def run_openssl(command: str) -> None:
        run([openssl, *command.split()], cwd=folder)

    for name in ("ca", "server", "service-account"):
        run_openssl(f"genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key")
    run_openssl("pkey -in service-account.key -pubout -out service-account.pub")
    with_names = "-config extensions.conf"
    run_openssl(f"req -x509 -new -key ca.key -subj /CN=llm-operator-cluster -days 3650 {with_names}"
                " -extensions authority -out ca.crt")  # fmt: skip
    run_openssl(f"req -new -key server.key -subj /O=system:masters/CN=kube-apiserver {with_names}"
                " -out server.csr")  # fmt: skip
    run_openssl("x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650"
                " -extfile extensions.conf -extensions server -out server.crt")  # fmt: skip


def make_tokens(file: Path, node: str) -> dict[str, str]:
    """Write the API server's token file and return the token of each user."""
    users = USERS | {f"system:node:{node}": ("system:nodes",)}
    tokens = {user: secrets.token_hex(24) for user in users}
    file.touch(mode=0o600)
    file.write_text(
        "".join(f'{tokens[user]},{user},{user},"{",".join(users[user])}"\n' for user in users)
    )
    return tokens
