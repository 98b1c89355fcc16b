import ArgumentParser
import Disk
import QMP

struct DiskCopy: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "copy",
    abstract: "Make a qcow2 image of what another one reads as, based on nothing.",
    discussion: """
      Clusters of zeros take no room. With --snapshot the new image is what the other one was \
      when that internal snapshot was taken, which 'carrel-vmm disk info' lists.
      """)

  @OptionGroup var options: DiskToolOptions

  @Argument(help: ArgumentHelp("The new image.", valueName: "new"))
  var target: String

  @Option(help: ArgumentHelp("Compress clusters.", valueName: "zlib|zstd"))
  var compress: Qcow2Options.Compression?

  @Option(
    help: ArgumentHelp("An internal snapshot's name or identifier.", valueName: "name"))
  var snapshot: String?

  @Option(
    help: ArgumentHelp(
      "A power of two from 512 bytes to 2M, with unit K or M; 64K if left out.",
      valueName: "bytes"))
  var clusterSize: ClusterSize?

  func run() throws {
    try options.run("copying") { progress in
      try ImageCopy.make(
        target, of: options.file, options.policy, snapshot: snapshot, compresses: compress != nil,
        options: Qcow2Options(
          byteCount: 0, clusterSize: clusterSize?.bytes ?? ClusterSize.usual,
          compression: compress ?? .zlib), progress: progress.show)
    }
    try options.report(
      ["file": .string(target)], "\(target) is a copy of \(options.file).")
  }
}

extension Qcow2Options.Compression: ExpressibleByArgument {
  public init?(argument: String) {
    switch argument {
    case "zlib": self = .zlib
    case "zstd": self = .zstd
    default: return nil
    }
  }
}
