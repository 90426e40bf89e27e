"""An identity provider as a site has one: its keys, their published set, and tokens signed with them."""

from __future__ import annotations

import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER, AUDIENCE = "https://id.example.org", "triage.example.org"
NAME = "Erika Mustermann"


class Issuer:
    """An identity provider with one key of each kind."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {
            "RS256": rsa.generate_private_key(65537, 2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }

    def document(self) -> dict[str, Any]:
        described = []
        for name, key in self.keys.items():
            one = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)  # type: ignore[call-overload]
            described.append(one | {"kid": name, "alg": name, "use": "sig"})
        return {"keys": described}

    def token(self, kind: str = "RS256", *, key: Any = None, kid: str | None = None, **changed: Any) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": NAME, "exp": now + 300, "iat": now}
        claims |= {"scope": "openid triage:score"} | changed
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key or self.keys[kind], algorithm=kind, headers={"kid": kid or kind})
