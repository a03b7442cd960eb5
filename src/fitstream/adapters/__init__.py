"""Bridges to frameworks: one module a framework, built on its public types, imported only when it is used."""
