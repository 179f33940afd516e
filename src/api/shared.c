/* The shared library is the objects of vx_api and what they need; a target needs a source of its
 * own. */
typedef int vx_shared_library_has_no_code_of_its_own;
