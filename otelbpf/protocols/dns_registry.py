"""Numbers of DNS and their names, as IANA keeps them."""

from __future__ import annotations

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV = 1, 2, 5, 6, 12, 15, 16, 28, 33
NAPTR, DNAME, OPT, SVCB, HTTPS, CAA = 35, 39, 41, 64, 65, 257
IN = 1

NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3

_TYPES = {
    A: "A", NS: "NS", CNAME: "CNAME", SOA: "SOA", 10: "NULL", 11: "WKS", PTR: "PTR", 13: "HINFO", MX: "MX",
    TXT: "TXT", 17: "RP", 18: "AFSDB", 24: "SIG", 25: "KEY", AAAA: "AAAA", 29: "LOC", SRV: "SRV", NAPTR: "NAPTR",
    36: "KX", 37: "CERT", DNAME: "DNAME", OPT: "OPT", 42: "APL", 43: "DS", 44: "SSHFP", 45: "IPSECKEY",
    46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 49: "DHCID", 50: "NSEC3", 51: "NSEC3PARAM", 52: "TLSA", 53: "SMIMEA",
    55: "HIP", 59: "CDS", 60: "CDNSKEY", 61: "OPENPGPKEY", 62: "CSYNC", 63: "ZONEMD", SVCB: "SVCB", HTTPS: "HTTPS",
    99: "SPF", 108: "EUI48", 109: "EUI64", 249: "TKEY", 250: "TSIG", 251: "IXFR", 252: "AXFR", 253: "MAILB",
    254: "MAILA", 255: "ANY", 256: "URI", CAA: "CAA", 258: "AVC", 32768: "TA", 32769: "DLV",
}  # fmt: skip

_RESPONSE_CODES = {
    NOERROR: "NOERROR", 1: "FORMERR", SERVFAIL: "SERVFAIL", NXDOMAIN: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED",
    6: "YXDOMAIN", 7: "YXRRSET", 8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE", 11: "DSOTYPENI", 16: "BADVERS", 17: "BADKEY", 18: "BADTIME", 19: "BADMODE",
    20: "BADNAME", 21: "BADALG", 22: "BADTRUNC", 23: "BADCOOKIE",
}  # fmt: skip


def response_code_name(number: int) -> str:
    """`NXDOMAIN`; a code that nobody has been given as `RCODE3841`, as RFC 3597 does with types.

    The names are those of RFC 6895 (16 is BADVERS in EDNS, the one place where an answer has more than four bits).
    """
    return _RESPONSE_CODES.get(number) or f"RCODE{number}"


def type_name(number: int) -> str:
    """`AAAA`; a type without a name as `TYPE65280` (RFC 3597)."""
    return _TYPES.get(number) or f"TYPE{number}"
