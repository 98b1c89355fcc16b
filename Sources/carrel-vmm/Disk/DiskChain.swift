import ArgumentParser
import Disk
import QMP

struct DiskFlatten: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "flatten", abstract: "Make an image independent of what it is based on.")

  @OptionGroup var options: DiskToolOptions

  func run() throws {
    try options.run("flattening") { progress in
      try ChainOperation.flatten(options.file, options.policy, progress: progress.show)
    }
    try options.report(
      ["file": .string(options.file)], "\(options.file) is based on nothing any more.")
  }
}

struct DiskRebase: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rebase", abstract: "Base an image on another one.",
    discussion: """
      What differs between the two is copied to the image, which reads as before. With --unsafe \
      nothing is compared: for a base that was moved, or one with the same contents.
      """)

  @OptionGroup var options: DiskToolOptions

  @Option(
    help: ArgumentHelp("The new base.", valueName: "raw|qcow2:file"),
    transform: BaseArgument.init(parsing:))
  var onto: BaseArgument

  @Flag(help: "Only name the new base.")
  var unsafe = false

  func run() throws {
    try options.run("rebasing") { progress in
      if unsafe {
        try ChainOperation.rebaseUnsafely(options.file, onto: onto.backing)
      } else {
        try ChainOperation.rebase(
          options.file, onto: onto.backing, options.policy, progress: progress.show)
      }
    }
    try options.report(
      ["file": .string(options.file), "base": .string(onto.backing.name)],
      "\(options.file) is based on \(onto.backing.name).")
  }
}

struct DiskCommit: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "commit",
    abstract: "Write what an image has of its own to the image that it is based on.",
    discussion: "Other images that are based on that one read other data from then on.")

  @OptionGroup var options: DiskToolOptions

  @Flag(help: "Leave the image as it is rather than empty it.")
  var keep = false

  func run() throws {
    try options.run("committing") { progress in
      try ChainOperation.commit(
        options.file, options.policy, empties: !keep, progress: progress.show)
    }
    try options.report(
      ["file": .string(options.file)], "What \(options.file) had of its own is in its base.")
  }
}
