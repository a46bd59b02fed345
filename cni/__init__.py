"""podwire: a CNI plugin and a node agent. Starting Python costs a call more than its work does, so the modules that an
ADD or DEL loads are written in a few idioms:

- `TYPE_CHECKING = False` stands in for typing's constant: type checkers know the name, and typing is not loaded.
- `import posix as os` has the system calls of os without the abstract classes of collections, which cost 0.9 ms.
- `tuple([...])` takes a list: a generator would be resumed once for each element.
- `__import__(name)` and a look into sys.modules load a module by its name without importlib.
- Modules of features that few networks use are imported in the functions that need them. Records are declared with
  cni.protocol.record, not with typing or dataclasses, and only where a name for each field is worth a class.

README, Decisions, has the figures. tests/rules/test_modules.py lists the modules of each call,
tests/rules/test_source.py the imports that are allowed.
"""

VERSION = "0.1.0"
