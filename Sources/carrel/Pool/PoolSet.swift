import ArgumentParser
import ControlAPI
import ControlClient

struct PoolSet: Verb {
  static let configuration = CommandConfiguration(
    commandName: "set", abstract: "Changes a pool.",
    discussion: """
      What is not named stays. A new image, memory, number of processors or part of the machine \
      replaces the spares at once; desktops in use get them when they are next started. Limits of \
      disks hold at once for all.
      """)

  @Argument(help: "Name of the pool.", completion: .custom(Completions.pools))
  var name: String

  @Option(
    help: ArgumentHelp("What desktops are started from.", valueName: "image or file"),
    completion: .file())
  var image: String?

  @OptionGroup var pool: PoolOptions
  @OptionGroup var options: CommonOptions

  func validate() throws {
    guard pool.changesAnything || image != nil else {
      throw ValidationError(
        "say what is to change, such as --spares, --size, --memory or --image; "
          + "'carrel pool set --help' lists all of it.")
    }
    if pool.append != nil, image == nil {
      throw ValidationError("--append changes the image: name it again with --image")
    }
  }

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> PoolDocument {
    var update = PoolUpdate()
    update.image = image.map(pool.image)
    update.size = pool.size
    update.spares = pool.spares
    update.memoryMiB = pool.memory?.mebibytes
    update.cpus = pool.cpus
    update.diskMiB = pool.diskSize?.mebibytes
    update.hardware = pool.hardware
    update.policies = pool.policies
    return try await client.send(.PATCH, APIPath("pools", name), update)
  }

  func render(_ answer: PoolDocument, _ terminal: Terminal) -> String {
    carrel.render(answer)
  }
}
