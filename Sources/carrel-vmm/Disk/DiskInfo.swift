import ArgumentParser
import Disk
import QMP

struct DiskInfo: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "info",
    abstract: "Show a qcow2 image, its internal snapshots and all that it is based on.")

  @OptionGroup var options: DiskToolOptions

  func run() throws {
    try options.run("looking at") { _ in
      let image = try Qcow2Image.open(options.file, isReadOnly: true, options.policy)
      defer { image.unlock() }
      var chain: [any ImageLayer] = []
      var layer: (any ImageLayer)? = image
      while let present = layer {
        chain.append(present)
        layer = (present as? Qcow2Image)?.backing
      }
      let documents = chain.map { layer -> JSON in
        [
          "file": .string(layer.path), "format": .string(layer is Qcow2Image ? "qcow2" : "raw"),
          "size": .integer(Int64(clamping: layer.byteCount)),
        ]
      }
      let lines = chain.enumerated().map { index, layer in
        (index == 0 ? "" : String(repeating: "   ", count: index - 1) + "└─ ")
          + "\(layer.path)  \(layer is Qcow2Image ? "qcow2" : "raw"), \(layer.byteCount) bytes"
      }
      let snapshots = try image.snapshots()
      let named = snapshots.map { snapshot -> JSON in
        [
          "id": .string(snapshot.identifier), "name": .string(snapshot.name),
          "size": .integer(Int64(clamping: snapshot.byteCount)),
          "time": .integer(Int64(snapshot.time)),
        ]
      }
      let shots = snapshots.map {
        "snapshot \($0.identifier): \($0.name), \($0.byteCount) bytes"
      }
      try options.report(
        ["chain": .array(documents), "snapshots": .array(named)],
        (lines + shots).joined(separator: "\n"))
    }
  }
}
