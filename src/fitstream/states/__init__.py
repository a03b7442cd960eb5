"""States of a loader, and what they are compared by.

From the ground up:

codes, plain, visits, sampled   what code, values, things that hold each other and large arrays mean, as bytes
digests                         what a function or an object means: 16 bytes
fingerprint                     what a loader delivers: its parts, each with a digest
state                           a place and a fingerprint as JSON; read with checks, told with what changed
bookmark                        the places of one loader
"""
