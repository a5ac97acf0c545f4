"""Exceptions as a structure that cannot execute: docs/design/payload.md, "Exception".

Owns the walk over causes and frames, and its bounds. Leaves raising them again to the client.
"""

import builtins
import linecache
import pickle
import traceback
import types

import farlane_value

TEXT_LIMIT = 64 * 1024
MESSAGE_LIMIT = 16 * 1024
REPR_LIMIT = 1024
CHAIN_LIMIT = 16
FRAMES_KEPT = 32
PICKLE_LIMIT = 1 << 20
# Encoded size beyond which the parts that may be left out are.
TOTAL_LIMIT = 4 << 20
# How Python's own classes keep attributes.
SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)
# From Python 3.11 on.
GROUP = getattr(builtins, "BaseExceptionGroup", ())


class PayloadTooLarge(ValueError):
    """A result that is more than a node sends; the client has the class that this stands for."""

    __module__ = "farlane"


def describe(error, phase, own):
    """The sealed exception's plaintext: codec 0, then the value codec of a dict.

    Total: whatever the exception's own code does when it is looked at, something is reported.
    """
    try:
        encoded = _describe(error, phase, own)
    except BaseException:
        encoded = None
    return b"\x00" + (encoded or farlane_value.encode(_bare(error, phase)))


def _bare(error, phase):
    """No more than what kind of exception it was."""
    kind = type.__dict__["__name__"].__get__(type(error))
    kind = _clean(kind)[:REPR_LIMIT]
    message = "the exception cannot be described"
    one = {"relation": None, "type": kind, "module": "", "message": message, "args": [], "frames": [], "pickle": None}
    return {"v": 1, "phase": phase, "text": "%s: %s\n" % (kind, message), "chain": [one]}


def _describe(error, phase, own):
    chain, seen, relation = [], set(), None
    link = error
    while link is not None and len(chain) < CHAIN_LIMIT and id(link) not in seen:
        seen.add(id(link))
        chain.append(_one(link, relation, own))
        if link.__cause__ is not None:
            link, relation = link.__cause__, "cause"
        elif link.__context__ is not None and not link.__suppress_context__:
            link, relation = link.__context__, "context"
        else:
            link = None
    first = chain[0]
    if type(error) is PayloadTooLarge:
        first["pickle"] = None
    elif phase == "encode":
        first["message"] = "the result cannot be sent: %s: %s" % (first["type"], first["message"])
        first["args"] = [first["message"]]
        first["type"], first["module"], first["pickle"] = "SerializationError", "farlane", None
    whole = {"v": 1, "phase": phase, "text": _text(error), "chain": chain}
    encoded = _encode(whole)
    if encoded is None or len(encoded) > TOTAL_LIMIT:
        for one in chain:
            one["args"], one["pickle"] = [], None
        encoded = _encode(whole)
    return encoded


def _clean(text):
    """Text that can be sent: lone surrogates, as in undecodable file names, are written out."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def _encode(value):
    try:
        return farlane_value.encode(value)
    except Exception:
        return None


def _one(error, relation, own):
    kind = type(error)
    return {
        "relation": relation,
        "type": _clean(getattr(kind, "__qualname__", kind.__name__))[:REPR_LIMIT],
        "module": _clean(getattr(kind, "__module__", ""))[:REPR_LIMIT],
        "message": _printable(str, error, MESSAGE_LIMIT),
        "args": [_argument(a) for a in _arguments(error)],
        "frames": _frames(error.__traceback__),
        "pickle": _pickle(error) if own else None,
    }


def _arguments(error):
    try:
        return list(error.args)[:64]
    except Exception:
        return []


def _argument(value):
    try:
        if len(farlane_value.encode(value)) <= PICKLE_LIMIT:
            return value
    except BaseException:
        pass
    return _printable(repr, value, REPR_LIMIT)


def _printable(how, value, limit):
    try:
        text = _clean(how(value))
    except BaseException:
        text = "<unprintable %s>" % _clean(type(value).__name__)
    return text[:limit]


def _pickle(error):
    """This exception alone: its traceback and causes travel beside it. None where it cannot be made again."""
    try:
        # Members of a group may be of any class, and their causes are nowhere else.
        data = None if isinstance(error, GROUP) else _by_its_class(error)
        if data is None:
            data = _by_parts(error)
    except BaseException:
        return None
    return data if data is not None and len(data) <= PICKLE_LIMIT else None


def _by_its_class(error):
    """The pickle as its class makes it; None where that does not give the same exception again."""
    cause, context, suppress = error.__cause__, error.__context__, error.__suppress_context__
    try:
        error.__cause__ = error.__context__ = None
        try:
            data = pickle.dumps(error, 5)
        except Exception:
            import cloudpickle

            data = cloudpickle.dumps(error, 5)
        again = pickle.loads(data)
        same = type(again) is type(error) and str(again) == str(error)
    except Exception:
        return None
    finally:
        error.__cause__, error.__context__ = cause, context
        error.__suppress_context__ = suppress
    return data if same else None


def _by_parts(error):
    """A pickle that calls no constructor, which may want other arguments than the exception keeps: the
    class, `args` and attributes. What of these cannot be pickled is left out, or stands there as its repr.
    """
    import io

    import cloudpickle

    def fits(value):
        try:
            pickle.loads(cloudpickle.dumps(value, 5))
            return True
        except Exception:
            return False

    def parts(one):
        args = tuple(
            arg if _holds_errors(arg) or fits(arg) else _printable(repr, arg, REPR_LIMIT) for arg in one.args
        )
        state = {name: value for name, value in _attributes(one) if _holds_errors(value) or fits(value)}
        # `OSError.__new__` leaves them to the constructor of a subclass.
        state["args"] = args
        if one is not error:
            state.update(_links(one))
        return _maker(type(one)), (type(one), *args), state

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, value):
            if isinstance(value, BaseException):
                return parts(value)
            return super().reducer_override(value)

    out = io.BytesIO()
    Pickler(out, 5).dump(error)
    data = out.getvalue()
    return data if type(pickle.loads(data)) is type(error) else None


def _attributes(error):
    """Its own, and those that Python's classes keep elsewhere, like `OSError.errno`."""
    for base in type(error).__mro__:
        if base.__module__ == "builtins" and base not in (BaseException, object) and not issubclass(base, GROUP):
            for name, found in vars(base).items():
                value = getattr(error, name, None) if type(found) in SLOTS and name[0] != "_" else None
                if value is not None:
                    yield name, value
    yield from vars(error).items()


def _holds_errors(value):
    if isinstance(value, (list, tuple)):
        return any(isinstance(one, BaseException) for one in value)
    return isinstance(value, BaseException)


def _links(error):
    """Cause and context of a group's member."""
    if error.__cause__ is not None:
        return {"__cause__": error.__cause__}
    if error.__context__ is not None and not error.__suppress_context__:
        return {"__context__": error.__context__}
    return {}


def _maker(kind):
    """What makes an instance and runs nothing of the task's: the nearest `__new__` of Python's own."""
    for base in kind.__mro__:
        if base.__module__ == "builtins" and "__new__" in base.__dict__:
            return base.__new__
    return BaseException.__new__


def _own_frame(name):
    return name.endswith("farlane_worker.py")


def _frames(tb):
    found = []
    while tb is not None:
        code = tb.tb_frame.f_code
        if not _own_frame(code.co_filename):
            file, function = _clean(code.co_filename), _clean(code.co_name)
            found.append([file[-REPR_LIMIT:], tb.tb_lineno or 0, function[:REPR_LIMIT], _source(tb)])
        tb = tb.tb_next
    if len(found) > 2 * FRAMES_KEPT:
        found = found[:FRAMES_KEPT] + found[-FRAMES_KEPT:]
    return found


def _source(tb):
    """The line that ran; a loader of the task's own may give anything for it."""
    code = tb.tb_frame.f_code
    try:
        line = linecache.getline(code.co_filename, tb.tb_lineno, tb.tb_frame.f_globals)
        return _clean(line).strip()[:REPR_LIMIT]
    except BaseException:
        return ""


def _text(error):
    try:
        tb = error.__traceback__
        while tb is not None and _own_frame(tb.tb_frame.f_code.co_filename):
            tb = tb.tb_next
        text = "".join(traceback.format_exception(type(error), error, tb))
    except BaseException:
        text = "<unprintable %s>" % type(error).__name__
    text = _clean(text)
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT // 2] + "\n…\n" + text[-TEXT_LIMIT // 2 + 8 :]
