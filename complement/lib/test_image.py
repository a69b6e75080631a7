import io
import pathlib
import sys
import tarfile
import unittest

import common
import image

LDD = """\
\tlinux-vdso.so.1 (0x00007ffd)
\tlibstdc++.so.6 => /lib/x86_64-linux-gnu/libstdc++.so.6 (0x00007f1c)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1b)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f1d)
"""


class Image(unittest.TestCase):
    def test_every_library_with_a_path_is_taken(self):
        expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libstdc++.so.6", "/lib64/ld-linux-x86-64.so.2"]
        self.assertEqual(image.libraries(LDD), expected)

    def test_a_missing_library_is_told(self):
        with self.assertRaisesRegex(common.Unusable, "libz"):
            image.libraries("\tlibz.so.1 => not found\n")

    def test_the_context_is_the_same_for_the_same_binary(self):
        binary = pathlib.Path(sys.executable).resolve()
        first = image.context(binary, binary)
        self.assertEqual(first, image.context(binary, binary))
        names = tarfile.open(fileobj=io.BytesIO(first)).getnames()
        self.assertIn("root/usr/bin/hearth", names)
        self.assertIn("root/etc/nsswitch.conf", names)
        self.assertTrue(any(name.startswith("root/lib") for name in names))


if __name__ == "__main__":
    unittest.main()
