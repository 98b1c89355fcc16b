import LinuxSystem

/// What programs write to their standard output and error.
enum LogFile {
  /// A log that grew beyond this begins anew.
  static let limit: UInt64 = 1 << 20

  /// Opens it for appending; several programs may write to one.
  static func open(_ path: String) throws(SystemError) -> FileDescriptor {
    var options: FileDescriptor.Options = [.writeOnly, .create, .append]
    if let log = try? FileDescriptor.open(path), try log.size() > limit {
      options.insert(.truncate)
    }
    return try FileDescriptor.open(path, options)
  }
}
