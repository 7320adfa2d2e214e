// Part of manylinux wheels only (setup.py): what the compiler takes from the newest libstdc++ and
// libc, defined here, so that the wheel loads where these are older (GCC 8, glibc 2.28). Nothing
// of it is visible to other libraries: the wheel is linked with hidden.map.

#include <new>
#include <sstream>

// Their constructors without arguments are in libstdc++ from GCC 9 on.
template class std::basic_stringstream<char>;
template class std::basic_ostringstream<char>;

namespace std {
// In libstdc++ from GCC 11 on.
void __throw_bad_array_new_length() { throw bad_array_new_length(); }
}  // namespace std

// In glibc from 2.32 on: 0 says that there may be several threads, which is always safe.
extern "C" {
char __libc_single_threaded = 0;
}
