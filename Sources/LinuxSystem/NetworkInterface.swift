import CLinux

extension FileDescriptor {
  /// The frames of a TAP interface of this host, one to a read or write, not blocking.
  ///
  /// - Throws: kind `permissionDenied` where the interface is not this user's; `busy` when
  ///   something else is attached to it.
  public static func tap(_ name: String) throws(SystemError) -> FileDescriptor {
    FileDescriptor(owning: try check(clinux_tap_open(name), "attach to the TAP interface \(name)"))
  }
}

public enum NetworkNamespace {
  /// Moves this thread, and what it starts from now on, into a new network with nothing but
  /// a loopback. It goes with the last that is in it.
  public static func enterNew() throws(SystemError) {
    try check(clinux_new_network(), "make a network namespace")
  }
}
