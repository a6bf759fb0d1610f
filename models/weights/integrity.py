"""Whether a file that torch.save wrote is as it was written: its zip holds a checksum of each tensor's bytes.

torch itself does not look at them. To do so reads the whole file, and takes a core about 0.4 s a GB besides.
"""

import errno
import struct
import zipfile
import zlib
from pathlib import Path

from models.errors import UserError

_FOLDER = 0x10  # the attribute of a folder, by which torch would read a record as empty


class DamagedFile(UserError, ValueError):
    """A file that holds something else than was written into it."""


def verify_zip(path: Path) -> None:
    """Check every record of a zip (the format of torch.save) against its CRC32, in little memory.

    Raises:
        DamagedFile: a record (the first one is named) differs from what was written, or the file is no whole zip.
        OSError: the file cannot be read.
    """
    damages = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error, zlib.error)
    try:
        with zipfile.ZipFile(path) as archive:
            # torch stores records as they are, and would take a packed one's bytes for a tensor's.
            odd = [
                record.filename
                for record in archive.infolist()
                if record.compress_type != zipfile.ZIP_STORED or record.external_attr & _FOLDER
            ]
            broken = odd[0] if odd else archive.testzip()
    except damages as error:
        raise DamagedFile(f"{path} is damaged or cut off ({error or 'it ends too early'})") from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise DamagedFile(f"{path} is damaged: it points outside of itself") from None
    if broken is not None:
        raise DamagedFile(f"{path} is damaged: its record {broken!r} is not what was written (the checksum differs)")
