import ArgumentParser
import Disk
import QMP

struct DiskCreate: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Make a qcow2 image, empty or over another image.")

  @OptionGroup var options: DiskToolOptions

  @Option(help: ArgumentHelp("Of the disk, with unit K, M (assumed), G or T.", valueName: "size"))
  var size: ByteSize?

  @Option(
    help: ArgumentHelp(
      "Read as this image until something is written; the size is that image's.",
      valueName: "raw|qcow2:file"), transform: BaseArgument.init(parsing:))
  var over: BaseArgument?

  @Option(
    help: ArgumentHelp("A power of two from 512 to 2M, in bytes.", valueName: "bytes"))
  var clusterSize = 65536

  @Flag(help: "Write reference counts late: faster, and counted anew after a crash.")
  var lazyRefcounts = false

  func validate() throws {
    guard (size == nil) != (over == nil) else {
      throw ValidationError("give either --size or --over.")
    }
  }

  func run() throws {
    try options.run("making") { _ in
      let new = Qcow2Options(
        byteCount: size?.bytes ?? 0, clusterSize: clusterSize, hasLazyRefcounts: lazyRefcounts)
      if let over {
        try Qcow2Image.createOverlay(
          options.file, over: over.backing, options.policy, options: new)
      } else {
        try Qcow2Image.create(options.file, new)
      }
    }
    try options.report(
      ["file": .string(options.file)], "\(options.file) is made.")
  }
}
