import Glibc
import LinuxSystem

/// Finds out who locked a file. The kernel does not name the owner of an OFD
/// lock, but shows the lock in the owner's /proc/PID/fdinfo.
enum LockHolder {
  static func find(of file: FileDescriptor) -> Int32? {
    var wanted = stat()
    guard fstat(file.raw, &wanted) == 0 else { return nil }
    for process in names(in: "/proc").compactMap({ Int32($0) }) {
      for descriptor in names(in: "/proc/\(process)/fd") where Int32(descriptor) != nil {
        if process == getpid(), Int32(descriptor) == file.raw { continue }
        var status = stat()
        guard stat("/proc/\(process)/fd/\(descriptor)", &status) == 0,
          status.st_dev == wanted.st_dev, status.st_ino == wanted.st_ino,
          let info = try? Files.read("/proc/\(process)/fdinfo/\(descriptor)", limit: 1 << 16)
        else { continue }
        if String(decoding: info, as: UTF8.self).contains("OFDLCK") { return process }
      }
    }
    return nil
  }

  private static func names(in directory: String) -> [String] {
    guard let stream = opendir(directory) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      // SAFETY: d_name is NUL-terminated, and the entry stays until the next readdir.
      let name = withUnsafePointer(to: &entry.pointee.d_name) { tuple in
        tuple.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      names.append(name)
    }
    return names
  }
}
