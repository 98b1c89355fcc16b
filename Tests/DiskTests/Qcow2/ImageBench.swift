import Disk
import LinuxSystem
import TestSupport
import Testing

/// A directory of images, and others' tools for them.
final class ImageBench {
  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  func path(_ name: String) -> String { directory.path(name) }

  /// Runs a shell command in the directory, which must succeed.
  @discardableResult
  func run(_ command: String) throws -> String {
    let (status, output) = try directory.run(command)
    guard status == 0 else { throw Failure(description: "\(command): \(status): \(output)") }
    return output
  }

  func create(_ name: String, _ options: Qcow2Options) throws {
    try Qcow2Image.create(path(name), options)
  }

  func open(
    _ name: String, isReadOnly: Bool = false, snapshot: String? = nil
  ) throws(DiskError) -> Qcow2Image {
    try Qcow2Image.open(path(name), isReadOnly: isReadOnly, BackingPolicy(), snapshot: snapshot)
  }

  /// What qemu-img makes of an image: neither errors nor leaks.
  func check(_ name: String) throws {
    try run("qemu-img check -f qcow2 \(name)")
  }

  /// What qemu-img reads from an image or one of its snapshots.
  func contents(_ name: String, snapshot: String? = nil) throws -> [UInt8] {
    let option = snapshot.map { "-l snapshot.name=\($0)" } ?? ""
    try run("rm -f contents.raw; qemu-img convert -f qcow2 \(option) -O raw \(name) contents.raw")
    return try directory.read("contents.raw")
  }

  func contents(ofOurs name: String, snapshot: String? = nil) throws -> [UInt8] {
    let image = try open(name, isReadOnly: true, snapshot: snapshot)
    let bytes = try image.read(Int(image.byteCount), at: 0)
    try image.close()
    return bytes
  }
}

extension [UInt8] {
  static func random(_ count: Int, using generator: inout SeededGenerator) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count + 8)
    while bytes.count < count {
      Swift.withUnsafeBytes(of: generator.next()) { bytes.append(contentsOf: $0) }
    }
    return Array(bytes.prefix(count))
  }

  /// Where two first differ; `nil` when they do not.
  func difference(_ other: [UInt8]) -> Int? {
    if self == other { return nil }
    return zip(self, other).enumerated().first { $1.0 != $1.1 }?.offset
      ?? Swift.min(count, other.count)
  }
}
